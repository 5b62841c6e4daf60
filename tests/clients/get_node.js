// Node's two built-in HTTP clients: `node get_node.js https|fetch URL...`; each answer becomes a line of JSON.
"use strict";
const http = require("node:http");
const https = require("node:https");

const CLIENTS = {
  https: (url) =>
    new Promise((resolve, reject) => {
      const library = url.startsWith("https:") ? https : http;
      const request = library.get(url, { timeout: 10000 }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (piece) => (text += piece));
        answer.on("end", () => resolve({ status: answer.statusCode, text }));
        answer.on("error", reject);
      });
      request.on("timeout", () => request.destroy(new Error("no answer in time")));
      request.on("error", reject);
    }),
  fetch: async (url) => {
    const answer = await fetch(url, { signal: AbortSignal.timeout(10000) });
    return { status: answer.status, text: await answer.text() };
  },
};

// Where a name has several addresses, the error is one of several, and has no text of its own.
function textOf(error) {
  const all = [error, error.cause, ...(error.errors || []), ...((error.cause && error.cause.errors) || [])];
  return all.filter(Boolean).map(String).join(" / ");
}

async function main([name, ...urls]) {
  for (const url of urls) {
    const started = Date.now();
    const told = await CLIENTS[name](url).catch((error) => ({ error: textOf(error) }));
    console.log(JSON.stringify({ url, seconds: (Date.now() - started) / 1000, ...told }));
  }
}

main(process.argv.slice(2));
