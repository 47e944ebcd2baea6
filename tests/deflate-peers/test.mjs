// permessage-deflate as others speak it: ws, websockets, libwebsockets and Chromium against the echo server, with each
// combination of parameters. `./check deflate` runs it.
//
// ECHO is the echo server, DEFLATE_TOOLS the folder in which the packages of package.json are installed (this one by default)
// and those of requirements.txt, in `python`; LWS_CLIENT is client.c, compiled.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const tools = path.resolve(process.env.DEFLATE_TOOLS ?? here);
const require = createRequire(path.join(tools, "package.json"));
const { WebSocket } = require("ws");
const { chromium } = require("playwright-core");
const echo = path.resolve(process.env.ECHO ?? "target/release/examples/echo");
const running = new Set();
const PATIENCE = 30_000;

/** What the server is told: every choice about its context takeover, with windows of each sort. */
const servers = [];
for (const takeover of ["", "server_context_takeover", "client_context_takeover", "server_context_takeover,client_context_takeover"]) {
  for (const bits of ["", "server_max_window_bits=9,client_max_window_bits=8", "server_max_window_bits=12,client_max_window_bits=10"]) {
    servers.push(["threshold=0", takeover, bits].filter(Boolean).join(","));
  }
}

/** What a client offers, in the same sense; `null` for what it does not say. */
const clients = [];
for (const serverNoContextTakeover of [false, true]) {
  for (const clientNoContextTakeover of [false, true]) {
    for (const [serverMaxWindowBits, clientMaxWindowBits] of [[null, null], [null, true], [9, 9], [15, 15], [11, true]]) {
      clients.push({ serverNoContextTakeover, clientNoContextTakeover, serverMaxWindowBits, clientMaxWindowBits });
    }
  }
}

const json = length => {
  let text = "";
  for (let id = 0; text.length < length; id += 1) text += JSON.stringify({ id, name: `name ${id % 37}`, price: (id * 7919) % 1000 });
  return text.slice(0, length);
};
const texts = ["", "x", json(100), json(1000), "à la carte, 🦀 ".repeat(200), json(1000), json(70_000), json(1000)];

/** Starts a server with these options, and waits until it says where it listens; ended after `body`. */
async function serving(deflate, body, ...more) {
  const child = spawn(echo, ["--listen", "127.0.0.1:0", `--deflate=${deflate}`, ...more], { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const said = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const address = (await said.next()).value?.match(/^listening on (.+:(\d+))$/);
  assert.ok(address, `${echo} says where it listens`);
  try {
    await body({ url: `ws://${address[1]}/`, port: address[2] });
  } finally {
    const ended = once(child, "exit");
    assert.ok(child.exitCode === null && child.kill(), "it was still running");
    await ended;
    running.delete(child);
  }
}

async function run(command, input, env = {}) {
  const child = spawn(command[0], command.slice(1), { timeout: PATIENCE, killSignal: "SIGKILL", env: { ...process.env, ...env } });
  let output = "", errors = "";
  child.stdout.on("data", data => { output += data; });
  child.stderr.on("data", data => { errors += data; });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [status] = await once(child, "close");
  assert.equal(status, 0, `${command.slice(0, 4).join(" ")}\n${output}${errors}`);
  return output;
}

/** What was agreed on must be what the server was told, and what the client asked for. */
function judge(agreed, server, client, what) {
  const has = name => agreed.split(/; */).some(parameter => parameter.split("=")[0] === name);
  const number = name => Number(agreed.match(new RegExp(`${name}=(\\d+)`))?.[1] ?? 15);
  const told = name => Number(server.match(new RegExp(`${name}=(\\d+)`))?.[1] ?? 15);
  assert.match(agreed, /^permessage-deflate/, what);
  assert.equal(has("server_no_context_takeover"), client.serverNoContextTakeover || !server.includes("server_context_takeover"), what);
  assert.equal(has("client_no_context_takeover"), client.clientNoContextTakeover || !server.includes("client_context_takeover"), what);
  const asked = client.serverMaxWindowBits;
  assert.equal(number("server_max_window_bits"), asked === null ? 15 : Math.min(asked, Math.max(told("server_max_window_bits"), 9)), what);
  const most = { null: 15, true: 15 }[client.clientMaxWindowBits] ?? client.clientMaxWindowBits;
  const bound = client.clientMaxWindowBits === null ? 15 : Math.min(most, told("client_max_window_bits"));
  assert.equal(number("client_max_window_bits"), bound, what);
}

const options = { timeout: 300_000 };

after(() => running.forEach(child => child.kill("SIGKILL")));

/** One connection of Node's `ws`; every message goes out whole and in fragments. */
async function talk(url, client) {
  const perMessageDeflate = { threshold: 0 };
  for (const [name, value] of Object.entries(client)) if (value !== null && value !== false) perMessageDeflate[name] = value;
  const socket = new WebSocket(url, { perMessageDeflate });
  await once(socket, "open");
  const agreed = socket.extensions === "" ? "" : socket._receiver._extensions["permessage-deflate"].params;
  let sent = 0;
  for (const message of [...texts, randomBytes(20_000), Buffer.alloc(100_000)]) {
    const half = Math.floor(message.length / 2);
    const bytes = Buffer.from(message);
    const binary = typeof message !== "string";
    for (const parts of [[bytes], [bytes.subarray(0, half), bytes.subarray(half)]]) {
      parts.forEach((part, index) => socket.send(part, { binary, fin: index === parts.length - 1 }));
      const [data, isBinary] = await once(socket, "message");
      assert.ok(bytes.equals(data) && binary === isBinary, `${bytes.length} bytes came back as ${data.length}`);
      sent += bytes.length;
    }
  }
  const { bytesRead, bytesWritten } = socket._socket;
  assert.ok(bytesRead < sent / 2 && bytesWritten < sent / 2, `${sent} bytes of payload: ${bytesRead} read, ${bytesWritten} written`);
  socket.close(1000);
  const [code] = await once(socket, "close");
  assert.equal(code, 1000);
  return agreed;
}

/** What `ws` keeps, written as in the field. */
function written(params) {
  const names = Object.entries(params).map(([name, value]) => (value === true ? name : `${name}=${value}`));
  return ["permessage-deflate", ...names].join("; ");
}

test("ws sends and gets every message, whatever is agreed on", options, async () => {
  for (const server of servers) {
    await serving(server, async ({ url }) => {
      await Promise.all(clients.map(async client => {
        // It always says something of its window, so that what it does not say is what it says by itself.
        const said = { ...client, clientMaxWindowBits: client.clientMaxWindowBits ?? true };
        judge(written(await talk(url, client)), server, said, `${server} and ${JSON.stringify(client)}`);
      }));
    });
  }
});

test("messages in pieces are compressed and inflated as they come", options, async () => {
  for (const server of servers) {
    await serving(server, async ({ url }) => {
      await Promise.all(clients.filter((_, index) => index % 3 === 0).map(client => talk(url, client)));
    }, "--streamed");
  }
});

test("an offer that cannot be kept to is declined, and nothing is compressed", options, async () => {
  await serving("threshold=0", async ({ url }) => {
    const socket = new WebSocket(url, { perMessageDeflate: { serverMaxWindowBits: 8, threshold: 0 } });
    await once(socket, "open");
    assert.equal(socket.extensions, "");
    socket.send(texts[3]);
    assert.equal(String((await once(socket, "message"))[0]), texts[3]);
    socket.close();
    await once(socket, "close");
  });
});

test("websockets sends and gets every message, whatever is agreed on", options, async () => {
  const input = JSON.stringify([...texts, 5000]);
  const several = JSON.stringify(clients.map(client => ({
    server_no_context_takeover: client.serverNoContextTakeover, client_no_context_takeover: client.clientNoContextTakeover,
    server_max_window_bits: client.serverMaxWindowBits, client_max_window_bits: client.clientMaxWindowBits,
  })));
  for (const eight of servers) {
    // It fails the connection when it is to compress with 8, which zlib cannot do.
    const server = eight.replace("client_max_window_bits=8", "client_max_window_bits=9");
    await serving(server, async ({ url }) => {
      const command = ["python3", path.join(here, "client.py"), url, several];
      const agreed = JSON.parse(await run(command, input, { PYTHONPATH: path.join(tools, "python") }));
      for (const [index, client] of clients.entries()) {
        const flag = name => agreed[index][0].match(new RegExp(`${name}=(True|False)`))[1] === "True";
        // It names the contexts by who receives and who sends.
        assert.equal(flag("remote_no_context_takeover"), client.serverNoContextTakeover || !server.includes("server_context_takeover"));
        assert.equal(flag("local_no_context_takeover"), client.clientNoContextTakeover || !server.includes("client_context_takeover"));
      }
    });
  }
});

test("libwebsockets sends and gets every message, whatever is agreed on", { ...options, skip: !process.env.LWS_CLIENT }, async () => {
  // Version 4.1 hands over a message that came uncompressed twice, whoever has sent it: here are only those that shrink.
  const long = texts.filter(text => text.length >= 100);
  const input = long.map(text => `${text}\n`).join("");
  const offers = [
    "permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover", "permessage-deflate; server_max_window_bits=10",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits",
  ];
  for (const server of servers) {
    await serving(server, async ({ port }) => {
      for (const offer of offers) assert.equal(await run([process.env.LWS_CLIENT, port, offer], input), `ok ${long.length}\n`);
    });
  }
});

test("a page in Chromium sends and gets every message, whatever is agreed on", options, async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage();
    for (const server of servers) {
      await serving(server, async ({ url }) => {
        const agreed = await page.evaluate(async ({ url, texts }) => {
          const socket = new WebSocket(url);
          socket.binaryType = "arraybuffer";
          const next = () => new Promise((resolve, reject) => {
            socket.onmessage = event => resolve(event.data);
            socket.onclose = event => reject(new Error(`closed with ${event.code} ${event.reason}`));
          });
          await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onclose = reject; });
          for (const text of [...texts, ...texts]) {
            const message = next();
            socket.send(text);
            if (await message !== text) throw new Error(`${text.length} characters came back wrong`);
          }
          const noise = crypto.getRandomValues(new Uint8Array(20_000));
          const message = next();
          socket.send(noise);
          const back = new Uint8Array(await message);
          if (back.length !== noise.length || back.some((byte, at) => byte !== noise[at])) throw new Error("bytes came back wrong");
          socket.onclose = null;
          socket.close();
          return socket.extensions;
        }, { url, texts });
        judge(agreed, server, { serverNoContextTakeover: false, clientNoContextTakeover: false, serverMaxWindowBits: null, clientMaxWindowBits: true }, server);
      });
    }
  } finally {
    await browser.close();
  }
});
