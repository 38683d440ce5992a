// An Express app that anybody can reach: ADIT_RELAY=https://… ADIT_KEY=… node examples/express.js
import { once } from "node:events";
import express from "express";
import { expose } from "adit-client";

const app = express();
app.set("trust proxy", "loopback"); // the relay says who the viewer is: X-Forwarded-For, -Proto, -Host
app.get("/", (request, response) => {
  response.send(`Hello ${request.ip}, you came by ${request.protocol}.\n`);
});

const server = app.listen(0, "127.0.0.1");
await once(server, "listening");

const tunnel = await expose({ port: server.address().port, host: "127.0.0.1", log: console.error });
console.log(tunnel.url);

process.once("SIGINT", () => tunnel.close());
process.once("SIGTERM", () => tunnel.close());
try {
  await tunnel.closed;
} finally {
  server.close();
}
