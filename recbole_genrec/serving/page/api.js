// Requests to the service. Every answer is JSON; an error carries a sentence for people.

async function read(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Error(`The service answered with status ${response.status} and no JSON.`);
  }
  if (!response.ok) {
    throw new Error(body.error ?? `The service answered with status ${response.status}.`);
  }
  return body;
}

async function ask(path, options) {
  let response = null;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  return read(response);
}

export function get(path) {
  return ask(path);
}

export function post(path, body) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}
