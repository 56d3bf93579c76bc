"""Trained models at work: lists of many users in files, and the service."""

from recbole_genrec.runtime.recbole_repairs import check_installation

check_installation()  # before any module of this room imports RecBole
