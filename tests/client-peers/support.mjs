// What the tests share: the client under test, the programs that it meets, and their certificates.
//
// CLIENT_PEERS_CLIENT is the program of client.rs, CLIENT_PEERS_TOOLS the folder where ws and websockets were installed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after } from "node:test";

const PROGRAM = path.resolve(process.env.CLIENT_PEERS_CLIENT ?? "target/release/examples/client-peers-client");
export const tools = path.resolve(process.env.CLIENT_PEERS_TOOLS ?? ".");
const required = createRequire(path.join(tools, "package.json"));
export const { WebSocketServer } = required("ws");
export const { version: wsVersion } = required("ws/package.json");
const PATIENCE = 30_000;

const folder = mkdtempSync(path.join(os.tmpdir(), "lodger-clients-"));
const running = new Set();
const listeners = new Set();

export const options = { timeout: 120_000 };
export const file = name => path.join(folder, name);
export const sha1 = content => createHash("sha1").update(content).digest("hex");

export function write(name, content) {
  writeFileSync(file(name), content);
  return file(name);
}

after(async () => {
  await Promise.all([...running].map(end));
  listeners.forEach(server => { server.close(); server.closeAllConnections?.(); });
  rmSync(folder, { recursive: true, force: true });
});

/** What `promise` comes to, in a time that only something broken takes. */
export async function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`no ${what}`)), PATIENCE); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a program that is ended with the test, if not before. */
export function start(command, settings = {}) {
  const child = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "pipe"], ...settings });
  running.add(child);
  child.output = "";
  child.stdout.on("data", data => { child.output += data; });
  child.stderr.on("data", data => { child.output += data; });
  child.stdin.on("error", () => {});
  const ended = () => { running.delete(child); child.ended = true; };
  child.on("error", error => { child.output += error; ended(); });
  child.on("close", ended);
  return child;
}

/** What it says next on its standard output, each time that it is asked. */
export function lines(child) {
  const iterator = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return async () => {
    const { value, done } = await soon(iterator.next(), "word of a server");
    assert.ok(!done, child.output);
    return value;
  };
}

/** Ends it, and waits until it has ended. */
async function end(child) {
  if (child.ended) return;
  const closed = once(child, "close");
  child.kill();
  const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await closed;
  clearTimeout(late);
}

/** Runs a program that ends by itself, and says what it wrote. */
export async function run(command) {
  const child = start(command);
  child.stdin.end();
  const [status] = await soon(once(child, "close"), `end of ${command[0]}`);
  assert.equal(status, 0, `${command.join(" ")}\n${child.output}`);
  return child.output.trim();
}

/** A key and a certificate for it, signed by `issuer`, or by itself. */
export async function certificate(name, extensions, issuer) {
  const signed = issuer ? ["-CA", file(`${issuer}.pem`), "-CAkey", file(`${issuer}.key`)] : [];
  await run([
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", `/CN=${name}`,
    "-keyout", file(`${name}.key`), "-out", file(`${name}.pem`), "-days", "2", ...signed,
    ...extensions.flatMap(extension => ["-addext", extension]),
  ]);
}

const LEAF = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"];

/** An authority, `ca`, and servers' certificates: `server` for localhost and `also`, `elsewhere` for another name, `alone` signed by itself. */
export async function certificates(also) {
  await certificate("ca", ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]);
  const names = `subjectAltName=DNS:localhost,IP:127.0.0.1${also ? `,DNS:${also}` : ""}`;
  await certificate("server", [...LEAF, names], "ca");
  await certificate("elsewhere", [...LEAF, "subjectAltName=DNS:elsewhere.example"], "ca");
  await certificate("alone", [...LEAF, "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
}

/** Lets a server of Node's listen on loopback; the answer is its port. */
export async function listening(server, host = "127.0.0.1") {
  server.listen(0, host);
  await soon(once(server, "listening"), "listener");
  listeners.add(server);
  return server.address().port;
}

async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer());
  const ports = [];
  for (const server of servers) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ports.push(server.address().port);
  }
  await Promise.all(servers.map(server => new Promise(done => server.close(done))));
  return ports;
}

const answers = port => new Promise(done => {
  const socket = net.connect(port, "127.0.0.1", () => { socket.destroy(); done(true); });
  socket.on("error", () => done(false));
});

/** Starts a program that wants to be told its ports. Somebody else may take one in between: then with others. */
export async function onFreePorts(count, command) {
  let child;
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const ports = await freePorts(count);
    child = start(command(ports));
    const end = Date.now() + PATIENCE;
    while (!child.ended && !/bind/i.test(child.output) && Date.now() < end) {
      if ((await Promise.all(ports.map(answers))).every(Boolean)) return ports;
      await new Promise(done => setTimeout(done, 20));
    }
    await end(child);
  }
  throw new Error(`it does not start: ${child.output}`);
}

/** One connection of the client's: what it says, line by line, and what it is told. */
class Connection {
  lines = [];
  waiting = [];
  fields = {};
  gone = null;

  constructor(client, number) {
    this.client = client;
    this.number = number;
  }

  hear(line) {
    const next = this.waiting.shift();
    if (next) next.resolve(line);
    else this.lines.push(line);
  }

  fail(error) {
    this.gone = error;
    this.waiting.splice(0).forEach(({ reject }) => reject(error));
  }

  tell(...words) {
    this.client.tell(this.number, ...words);
  }

  /** The next event that is no field of a response. */
  async next() {
    for (;;) {
      const line = this.lines.shift() ?? await soon(new Promise((resolve, reject) => {
        if (this.gone) reject(this.gone);
        else this.waiting.push({ resolve, reject });
      }), "event");
      if (line[0] !== "field") return line;
      (this.fields[line[1]] ??= []).push(line[2]);
    }
  }

  /** The next event, which must be this one; what is not named may be anything. */
  async expect(...words) {
    const line = await this.next();
    assert.deepEqual(line.slice(0, words.length), words, `${line}`);
    return line;
  }

  /** Its end: as people and as programs read it. */
  async closed(pattern) {
    const [, display, debug] = await this.expect("closed");
    if (pattern) assert.match(`${display} | ${debug}`, pattern);
    return { display, debug };
  }

  /** A response, without its content. */
  async response(status) {
    this.fields = {};
    const [, code, length] = await this.expect("response");
    assert.equal(code, `${status}`);
    return length;
  }

  /** A response with this content. */
  async page(status, content) {
    await this.response(status);
    const [, length, digest] = await this.expect("complete");
    if (content !== undefined) assert.deepEqual([length, digest], [`${Buffer.byteLength(content)}`, sha1(content)]);
  }
}

/** The program of client.rs. `names` are the names that its own resolver knows; without any, the system's is asked. */
export class Client {
  connections = new Map();
  count = 0;

  constructor(...names) {
    this.child = start([PROGRAM, ...names]);
    readline.createInterface({ input: this.child.stdout }).on("line", line => {
      const [number, ...words] = line.split("\t");
      this.connections.get(number)?.hear(words);
    });
    this.child.on("close", () => {
      const gone = new Error(`the client has ended: ${this.child.output.slice(-2000)}`);
      this.connections.forEach(connection => connection.fail(gone));
    });
  }

  tell(...words) {
    this.child.stdin.write(`${words.join("\t")}\n`);
  }

  open(...words) {
    const number = `${this.count += 1}`;
    const connection = new Connection(this, number);
    this.connections.set(number, connection);
    this.tell(number, ...words);
    return connection;
  }

  ws(url, ...more) {
    return this.open("ws", url, ...more);
  }

  http(method, url, ...more) {
    return this.open("http", method, url, ...more);
  }

  /** A WebSocket that is open. */
  async opened(url, ...more) {
    const socket = this.ws(url, ...more);
    await socket.expect("connected", "101 Switching Protocols");
    return socket;
  }

  /** Until it has no sockets but those that Node gave it to speak by. */
  async idle() {
    const folder = `/proc/${this.child.pid}/fd`;
    const isSocket = fd => {
      try {
        return Number(fd) > 2 && readlinkSync(`${folder}/${fd}`).startsWith("socket:");
      } catch {
        return false;
      }
    };
    while (readdirSync(folder).some(isSocket)) await new Promise(done => setTimeout(done, 5));
  }

  async stop() {
    const closed = once(this.child, "close");
    this.child.stdin.end();
    const [status] = await soon(closed, "end of the client");
    assert.equal(status, 0, this.child.output.slice(-2000));
  }
}

/** A test with a client of its own, which must end well and leave no socket open. */
export const using = (body, ...names) => async context => {
  const client = new Client(...names);
  await body(client, context);
  await soon(client.idle(), "end of its last socket");
  await client.stop();
};
