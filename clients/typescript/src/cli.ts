#!/usr/bin/env node
/** Exposes a port from the command line: the URL alone on stdout, everything else on stderr. */
import { parseArgs } from "node:util";
import { AditError, expose, type ExposeOptions } from "./adit.js";

const USAGE = `usage: adit-client [--relay URL] [--key KEY] [--port PORT | TARGET] [--name NAME]

TARGET is PORT, HOST:PORT or unix:/PATH. Also from the environment: ADIT_RELAY, ADIT_KEY (other users of a machine
see command lines), ADIT_TARGET. Exit codes: 0 done, 1 failed, 2 wrong usage, 69 relay unreachable, 77 not authorised.`;

const log = (line: string): void => {
  console.error(line);
};

function target(text: string): Pick<ExposeOptions, "port" | "host" | "path"> {
  if (text.startsWith("unix:")) return { path: text.slice("unix:".length) };
  const [, host, port] = /^(?:http:\/\/)?(?:(.+):)?(\d+)\/?$/.exec(text) ?? [];
  if (port === undefined)
    throw new AditError("usage", `cannot read the target ${text}: PORT, HOST:PORT or unix:/PATH`);
  return { port: Number(port), ...(host !== undefined && { host: host.replace(/^\[(.*)\]$/, "$1") }) };
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      relay: { type: "string" },
      key: { type: "string" },
      port: { type: "string" },
      name: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    log(USAGE);
    return 0;
  }
  const { relay, key, name, port = positionals[0] ?? process.env.ADIT_TARGET ?? "" } = values;
  const tunnel = await expose({
    ...target(port),
    ...(relay !== undefined && { relay }),
    ...(key !== undefined && { key }),
    ...(name !== undefined && { name }),
    log,
  });
  console.log(tunnel.url);
  tunnel.on("online", (url) => {
    log(`online: ${url}`);
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      log("finishing what is under way; another signal stops at once");
      process.once(signal, () => process.exit(1));
      void tunnel.close();
    });
  }
  await tunnel.closed;
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const code = error instanceof AditError ? error.code : "";
  const wrong =
    code === "usage" || String((error as NodeJS.ErrnoException).code).startsWith("ERR_PARSE_ARGS");
  log(error instanceof Error ? error.message : String(error));
  if (wrong) log(USAGE);
  process.exitCode = wrong ? 2 : code === "unreachable" ? 69 : code === "unauthorized" ? 77 : 1;
}
