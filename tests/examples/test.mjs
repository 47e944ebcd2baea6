// The clients among the examples as people use them: in a shell, a pipe, a terminal. `./check examples` runs it.
//
// EXAMPLES is the folder of the built examples.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import dgram from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";

const folder = mkdtempSync(path.join(os.tmpdir(), "lodger-examples-"));
const file = name => path.join(folder, name);
const example = name => path.resolve(process.env.EXAMPLES ?? "target/debug/examples", name);
const options = { timeout: 120_000 };
const running = new Set();
/** O_NONBLOCK of Linux. */
const NONBLOCK = 0o4000;
const LOOPS = ["poll", "epoll", "single-fd", "polling", "calloop", "mio", "tokio"];

/** Runs a program to its end. Each step is what it has to have said, and what it is told then; after the last, its input ends. */
async function run(command, steps = []) {
  const child = spawn(command[0], command.slice(1), { timeout: 60_000, killSignal: "SIGKILL" });
  const output = [], errors = [];
  let at = 0;
  const advance = async () => {
    while (at < steps.length && steps[at][0].test(`${Buffer.concat(output)}${Buffer.concat(errors)}`)) {
      const tell = steps[at++][1];
      if (typeof tell === "function") tell(); else if (tell !== null) child.stdin.write(tell);
    }
    if (at === steps.length) child.stdin.end();
  };
  child.stdout.on("data", data => { output.push(data); advance(); });
  child.stderr.on("data", data => { errors.push(data); advance(); });
  // It may have ended before it was told everything.
  child.stdin.on("error", () => {});
  advance();
  const [status] = await once(child, "close");
  return { status, output: Buffer.concat(output).toString(), errors: Buffer.concat(errors).toString() };
}

/** Starts a server, and waits until it says where it listens. */
async function start(name, ...flags) {
  const child = spawn(example(name), flags, { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const said = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const address = (await said.next()).value?.match(/^listening on (?:https?:\/\/)?([^/]+)/)?.[1];
  assert.ok(address, `${name} says where it listens`);
  child.stdout.resume();
  const stop = async () => {
    const ended = once(child, "exit");
    child.kill();
    await ended;
    running.delete(child);
  };
  return { address, stop };
}

/** A server of Node's, on a port of the system's choice. */
async function listening(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${server.address().port}`;
}

/** Where nobody listens. */
async function nowhere() {
  const server = net.createServer();
  const address = await listening(server);
  server.close();
  await once(server, "close");
  return address;
}

const client = (...flags) => [example("client"), ...flags];
const fetch = (...flags) => [example("fetch"), ...flags];
/** The same in a terminal, whose input is this program's. */
const inTerminal = line => ["script", "--quiet", "--return", "--command", line, "/dev/null"];

let echo, secure, house;
before(async () => {
  const made = await run([
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-keyout", file("key.pem"), "-out", file("ca.pem"), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
  ]);
  assert.equal(made.status, 0, made.errors);
  echo = await start("echo", "--listen", "127.0.0.1:0", "--deflate");
  secure = await start("echo", "--listen", "127.0.0.1:0", "--tls-cert", file("ca.pem"), "--tls-key", file("key.pem"));
  house = await start("existing_server", "--listen", "127.0.0.1:0", "--fifo", file("fifo"));
});
after(() => {
  for (const child of running) child.kill();
  rmSync(folder, { recursive: true, force: true });
});

for (const loop of LOOPS) {
  test(`client sends lines and shows what comes back, in the loop ${loop}`, options, async () => {
    const talk = [[/connected/, "hello\nand again\n"], [/< and again/, null]];
    const ended = await run(client(`ws://${echo.address}/`, "--loop", loop), talk);
    assert.deepEqual([ended.status, ended.output], [0, "< hello\n< and again\n"], ended.errors);
    assert.match(ended.errors, /closed by us, code 1000/);
  });
}

test("client sends what was there before it was connected, and a last line without an end", options, async () => {
  const ended = await run(["sh", "-c", `printf 'one\\ntwo' | ${example("client")} ws://${echo.address}/`]);
  assert.deepEqual([ended.status, ended.errors], [0, "connected; Ctrl-D closes\nclosed by us, code 1000\n"]);
});

test("client shows bytes in hexadecimal, and lets no peer command the terminal", options, async () => {
  const talk = [[/connected/, Buffer.from([0xff, 0x41, 0x0a])], [/< 2 bytes/, "\x1b[2J\n"], [/\[2J/, null]];
  const ended = await run(client(`ws://${echo.address}/`), talk);
  assert.match(ended.output, /^< 2 bytes\n {2}00000000 {2}ff 41 +\.A\n< \\u\{1b\}\[2J\n$/);
});

test("client says with -v what was agreed on", options, async () => {
  const url = `ws://${echo.address}/`;
  const ended = await run(client(url, "-v", "--deflate", "--subprotocol", "echo"), [[/Extensions/, null]]);
  assert.match(ended.errors, /Sec-WebSocket-Protocol: echo\nSec-WebSocket-Extensions: permessage-deflate/);
});

test("client speaks TLS with a server that it trusts, or is told not to verify", options, async () => {
  for (const trust of [["--ca", file("ca.pem")], ["--insecure"]]) {
    const ended = await run(client(`wss://${secure.address}/`, ...trust), [[/connected/, "hello\n"], [/< hello/, null]]);
    assert.deepEqual([ended.status, ended.output], [0, "< hello\n"], ended.errors);
  }
  const ended = await run(client(`wss://${secure.address}/`));
  assert.equal(ended.status, 1);
  assert.match(ended.errors, /^TLS failed: .*certificate/m);
});

test("client says why it could not connect", options, async () => {
  const address = await nowhere();
  const refused = await run(client(`ws://${address}/`));
  assert.equal(refused.status, 1);
  assert.match(refused.errors, new RegExp(`^no address could be connected to: ${address}: Connection refused`));
  const answered = await run(client(`ws://${house.address}/nothing`));
  assert.deepEqual([answered.status, answered.errors], [1, "the server answered 404 Not Found to the opening handshake\n"]);
  const silent = net.createServer();
  const waited = await run(client(`ws://${await listening(silent)}/`, "--timeout", "0.1"));
  silent.close();
  assert.deepEqual([waited.status, waited.errors.split(" ", 2).join(" ")], [1, "timed out"]);
});

test("client sends the fields that it is told", options, async () => {
  const server = http.createServer();
  const upgrade = once(server, "upgrade");
  const url = `ws://${await listening(server)}/here`;
  const ended = run(client(url, "--header", "X-Why: because", "--origin", "http://there", "--subprotocol", "a", "--subprotocol", "b"));
  const [request, socket] = await upgrade;
  socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  server.close();
  const { "x-why": why, origin, "sec-websocket-protocol": subprotocols } = request.headers;
  assert.deepEqual([request.url, why, origin, subprotocols], ["/here", "because", "http://there", "a, b"]);
  assert.equal((await ended).status, 1);
});

test("client connects through a proxy", options, async () => {
  const asked = [];
  const proxy = http.createServer().on("connect", (request, socket) => {
    asked.push(request.url, request.headers["proxy-authorization"]);
    const [host, port] = request.url.split(":");
    const far = net.connect(port, host, () => {
      socket.write("HTTP/1.1 200 Here\r\n\r\n");
      far.pipe(socket).pipe(far);
    });
  });
  const through = ["--proxy", `http://me:secret@${await listening(proxy)}`];
  const ended = await run(client(`ws://${echo.address}/`, ...through), [[/connected/, "hello\n"], [/< hello/, null]]);
  proxy.close();
  assert.deepEqual([ended.status, ended.output], [0, "< hello\n"], ended.errors);
  assert.deepEqual(asked, [echo.address, `Basic ${Buffer.from("me:secret").toString("base64")}`]);
});

test("client connects again when it is told to", options, async () => {
  const first = await start("echo", "--listen", "127.0.0.1:0");
  let second;
  const again = async () => {
    await first.stop();
    second = await start("echo", "--listen", first.address);
  };
  const ended = await run(client(`ws://${first.address}/`, "--reconnect"), [
    [/connected/, again], [/connected[^]*connecting again[^]*connected;/, "hello\n"], [/< hello/, null],
  ]);
  await second.stop();
  assert.deepEqual([ended.status, ended.output], [0, "< hello\n"], ended.errors);
});

test("client in a terminal ends with Ctrl-D, and leaves the terminal as it was", options, async () => {
  const flags = "grep flags /proc/self/fdinfo/0";
  const line = `${flags}; ${example("client")} ws://${echo.address}/; echo ended $?; ${flags}`;
  const ended = await run(inTerminal(line), [[/connected/, "hello\n"], [/< hello/, "\x04"], [/ended/, null]]);
  assert.match(ended.output, /< hello\r\n[^]*ended 0\r\n/);
  const found = [...ended.output.matchAll(/^flags:\s+([0-7]+)/gm)].map(match => parseInt(match[1], 8));
  assert.deepEqual(found.map(flags => flags & NONBLOCK), [0, 0]);
});

test("fetch gets a page of a server that lodger has moved into", options, async () => {
  const page = readFileSync("examples/existing_server/page.html", "utf8");
  const shown = await run(fetch(`http://${house.address}/`));
  assert.deepEqual([shown.status, shown.output, shown.errors], [0, page, ""]);
  const kept = await run(fetch(`http://${house.address}/`, "-o", file("page")));
  assert.deepEqual([kept.status, kept.output, readFileSync(file("page"), "utf8")], [0, "", page]);
});

test("fetch adds to the file that standard output is", options, async () => {
  writeFileSync(file("log"), "before\n");
  await run(["sh", "-c", `${example("fetch")} http://${echo.address}/ >> ${file("log")}`]);
  assert.match(readFileSync(file("log"), "utf8"), /^before\nAn echo server/);
});

test("fetch tells by its status how it went", options, async () => {
  const missing = await run(fetch(`http://${house.address}/nothing`, "-o", file("missing")));
  assert.deepEqual([missing.status, missing.errors], [3, "fetch: the server answered 404 Not Found\n"]);
  const refused = await run(fetch(`http://${await nowhere()}/`, "-o", file("never")));
  assert.equal(refused.status, 1);
  assert.match(refused.errors, /^fetch: no address could be connected to: .* Connection refused/);
  assert.ok(!existsSync(file("never")), "nothing was written for it");
  assert.equal((await run(fetch())).status, 2);
  const nowhereToPut = await run(fetch(`http://${house.address}/`, "-o", file("no/such/folder")));
  assert.equal(nowhereToPut.status, 4);
});

test("fetch sends data, over TLS too", options, async () => {
  for (const url of [`http://${echo.address}/`, `https://${secure.address}/`]) {
    const posted = await run(fetch(url, "--data", "a=b", "--ca", file("ca.pem")));
    assert.deepEqual([posted.status, posted.output], [0, "a=b"], posted.errors);
  }
});

test("fetch follows redirects, and does not take half of something for all of it", options, async () => {
  const server = http.createServer((request, response) => {
    if (request.url === "/there") return response.end("here it is");
    if (request.url === "/half") {
      response.writeHead(200, { "Content-Length": 100 }).write("half");
      return setImmediate(() => response.destroy());
    }
    response.writeHead(302, { Location: "/there" }).end();
  });
  const address = await listening(server);
  const followed = await run(fetch(`http://${address}/`));
  assert.deepEqual([followed.status, followed.output], [0, "here it is"], followed.errors);
  const half = await run(fetch(`http://${address}/half`));
  assert.deepEqual([half.status, half.errors], [1, "fetch: the connection ended before the response was complete\n"]);
  server.close();
});

test("fetch waits for who reads, and ends when nobody does", options, async () => {
  const most = 8 * 1024 * 1024;
  const server = http.createServer((_request, response) => response.end(Buffer.alloc(most, "x")));
  const url = `http://${await listening(server)}/`;
  const slow = await run(["sh", "-c", `${example("fetch")} ${url} | { head -c 1; sleep 0.3; wc -c; }`]);
  assert.deepEqual([slow.output.replace(/ /g, ""), slow.errors], [`x${most - 1}\n`, ""]);
  const left = await run(["sh", "-c", `{ ${example("fetch")} ${url}; echo $? >&2; } | head -c 1`]);
  assert.match(left.errors, /^fetch: the output cannot be written: .*\n4\n$/);
  server.close();
});

test("fetch shows in a terminal how far it is", options, async () => {
  const line = `${example("fetch")} http://${house.address}/ -o ${file("shown")}`;
  const ended = await run(inTerminal(line));
  assert.equal(ended.status, 0);
  assert.match(ended.output, /\[#{30}\] 100 % {2}[\d.]+ KiB of [\d.]+ KiB, [\d.]+ .?i?B\/s/);
});

test("own_resolver answers for each name", options, async () => {
  const server = dgram.createSocket("udp4").on("message", (query, from) => {
    // The question again, without what else was asked, as an answer that there is no such name.
    const end = query.indexOf(0, 12) + 5;
    const answer = Buffer.from(query.subarray(0, end));
    answer.set([0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0], 2);
    server.send(answer, from.port, from.address);
  });
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  const asked = ["--server", `127.0.0.1:${server.address().port}`, "localhost", "nothing.example"];
  const ended = await run([example("own_resolver"), ...asked]);
  server.close();
  assert.equal(ended.status, 0, ended.errors);
  assert.match(ended.output, /^localhost: \[.*127\.0\.0\.1.*\]\nnothing\.example: .+\n$/);
});
