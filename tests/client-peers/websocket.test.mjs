// lodger's WebSocket client against ws of Node and websockets of Python. `./check clients` runs it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import path from "node:path";
import { before, describe, test } from "node:test";
import {
  certificates, file, lines, listening, options, sha1, soon, start, tools, using, WebSocketServer, wsVersion,
} from "./support.mjs";

/** Each combination of one value of each list. */
const combinations = lists => lists.reduce((all, list) => all.flatMap(some => list.map(one => [...some, one])), [[]]);
const named = (keys, values) =>
  Object.fromEntries(keys.map((key, place) => [key, values[place]]).filter(([, value]) => value !== undefined));

const PYTHON = ["server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits"];
const pythons = combinations([[undefined, true], [undefined, true], [undefined, 9, 15], [undefined, 9, 15]])
  .map(values => named(PYTHON, values));
const NODE = ["serverNoContextTakeover", "clientNoContextTakeover", "serverMaxWindowBits", "clientMaxWindowBits"];
const nodes = combinations([[undefined, true, false], [undefined, true, false], [undefined, 9, 15, false], [undefined, 9, 15]])
  .map(values => ({ ...named(NODE, values), threshold: 0 }));

/** What we offer: who may refer to earlier messages, and how far back. */
const OFFERS = [
  [true, true, 15, 15], [false, false, 15, 15], [true, false, 9, 15], [false, true, 15, 9], [true, true, 9, 9], [false, false, 12, 12],
];

/** Node's server turns these away, as RFC 7692 lets it. */
const declined = (server, [serverTakesOver, , serverBits, clientBits]) =>
  (server.serverNoContextTakeover === false && !serverTakesOver)
  || (serverBits < 15 && (server.serverMaxWindowBits === false || server.serverMaxWindowBits > serverBits))
  || (clientBits < 15 && server.clientMaxWindowBits > clientBits);

/** What a connection to Node's server hears, by the path of its request. */
const paths = {
  "/echo": socket => socket.on("message", (data, binary) => socket.send(data, { binary })),
  "/seen": (socket, request) => {
    const fields = {};
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      (fields[request.rawHeaders[at].toLowerCase()] ??= []).push(request.rawHeaders[at + 1]);
    }
    socket.send(JSON.stringify(fields));
  },
  "/close": (socket, request) => {
    const query = new URL(request.url, "http://localhost").searchParams;
    socket.close(Number(query.get("code")), query.get("reason"));
  },
  "/fragments": socket => {
    for (const piece of ["frag", "", "men", "ted: grüß "]) socket.send(piece, { fin: false });
    socket.send("dich", { fin: true });
    for (let at = 0; at < 64; at += 1) socket.send(Buffer.alloc(1000, at), { fin: at === 63 });
  },
  "/pings": async socket => {
    for (const payload of ["", "one", "x".repeat(125)]) {
      const answered = new Promise(done => socket.once("pong", data => done(data.toString())));
      socket.ping(payload);
      assert.equal(await answered, payload);
    }
    socket.send("all answered");
  },
  "/gone": socket => socket.terminate(),
  "/told": socket => socket.on("close", (code, reason) => told.shift()?.([code, reason.toString()])),
};
const told = [];

/** Node's server: `deflate` is permessage-deflate as its path does not say it. */
function node(server) {
  const serve = deflate => new WebSocketServer({
    noServer: true, perMessageDeflate: deflate, maxPayload: 64 << 20,
    handleProtocols: offered => ["second", "first"].find(name => offered.has(name)) ?? false,
  });
  const plain = serve(false);
  const compressing = nodes.map(serve);
  server.on("upgrade", (request, socket, head) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/private") {
      socket.end('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="peers"\r\nContent-Length: 7\r\n\r\nnot you');
    } else if (pathname === "/moved") {
      socket.end("HTTP/1.1 302 Found\r\nLocation: /seen\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
      const [, number] = pathname.match(/^\/deflate\/(\d+)$/) ?? [];
      const handler = number === undefined ? paths[pathname] : paths["/echo"];
      (compressing[number] ?? plain).handleUpgrade(request, socket, head, socket => {
        // A test may leave before all was said.
        socket.on("error", () => {});
        handler(socket, request);
      });
    }
  });
  return listening(server);
}

const secured = name => ({ key: readFileSync(file(`${name}.key`)), cert: readFileSync(file(`${name}.pem`)) });

/** The servers, by their names: the URLs that lead to them, and what they say was said to them at the end. */
const servers = {};

before(async () => {
  await certificates();
  const deflates = pythons.map(deflate => ({ deflate }));
  const secure = ["server", "alone", "elsewhere"].map(name => ({ certificate: file(`${name}.pem`), key: file(`${name}.key`) }));
  const python = start(["python3", path.join(import.meta.dirname, "server.py"), JSON.stringify([{}, ...secure, ...deflates])], {
    env: { ...process.env, PYTHONPATH: path.join(tools, "python") },
  });
  const line = lines(python);
  const { version: release, ports: [port, ours, alone, elsewhere, ...compressing] } = JSON.parse(await line());
  servers.websockets = {
    version: release, at: port, secure: { server: ours, alone, elsewhere },
    compressing: pythons.map((_, number) => `ws://127.0.0.1:${compressing[number]}/echo`),
    told: async () => JSON.parse(await line()),
  };
  const at = await node(http.createServer());
  servers.ws = {
    version: wsVersion, at, secure: Object.fromEntries(await Promise.all(
      ["server", "alone", "elsewhere"].map(async name => [name, await node(https.createServer(secured(name)))]))),
    compressing: nodes.map((_, number) => `ws://127.0.0.1:${at}/deflate/${number}`),
    told: () => soon(new Promise(done => told.push(done)), "word of Node's server"),
  };
}, { timeout: 60_000 });

/** A message of each size there and back, one after the other, and then all of them at once. */
async function echoes(socket, sizes) {
  for (const kind of ["text", "binary"]) {
    for (const size of sizes) {
      socket.tell(kind, size);
      await socket.expect("echo", kind, `${size}`);
    }
    for (const size of sizes) socket.tell(kind, size);
    for (const size of sizes) await socket.expect("echo", kind, `${size}`);
  }
}

for (const name of ["ws", "websockets"]) {
  describe(`with ${name}`, () => {
    const url = target => `ws://127.0.0.1:${servers[name].at}${target}`;

    test("the server says its version", options, context => context.diagnostic(`${name} ${servers[name].version}`));

    test("messages of every length come back as they were", options, using(async client => {
      const socket = await client.opened(url("/echo"));
      await echoes(socket, [0, 1, 125, 126, 127, 4096, 65535, 65536, 65537, 1 << 20]);
      socket.tell("close", 1000, "");
      await socket.closed(/^closed by us, code 1000/);
    }));

    test("a message that we send in pieces comes back as one", options, using(async client => {
      const socket = await client.opened(url("/echo"));
      for (const [size, count] of [[3, 3], [1000, 7], [300_000, 11]]) {
        socket.tell("pieces", size, count);
        await socket.expect("echo", "binary", `${size}`);
      }
      socket.tell("close");
      await socket.closed();
    }));

    test("a message that the server sends in fragments is one", options, using(async client => {
      const socket = await client.opened(url("/fragments"));
      await socket.expect("message", "text", `${Buffer.byteLength("fragmented: grüß dich")}`, sha1("fragmented: grüß dich"));
      const pieces = Buffer.concat(Array.from({ length: 64 }, (_, at) => Buffer.alloc(1000, at)));
      await socket.expect("message", "binary", "64000", sha1(pieces));
      socket.tell("close");
      await socket.closed();
    }));

    test("pings are answered in both directions", options, using(async client => {
      const socket = await client.opened(url("/pings"));
      for (const payload of ["", "one", "x".repeat(125)]) await socket.expect("ping", payload);
      await socket.expect("message", "text", "12", sha1("all answered"), "all answered");
      for (const payload of ["", "two", "y".repeat(125)]) {
        socket.tell("ping", payload);
        await socket.expect("pong", payload);
      }
      socket.tell("close");
      await socket.closed();
    }));

    test("code and reason of our Close reach the server", options, using(async client => {
      for (const [code, reason] of [[1000, "good bye"], [1001, ""], [3000, "grüß dich"], [4999, "r".repeat(123)]]) {
        const socket = await client.opened(url("/told"));
        const told = servers[name].told();
        socket.tell("close", code, reason);
        assert.deepEqual(await told, [code, reason]);
        await socket.closed(new RegExp(`^closed by us, code ${code}`));
      }
    }));

    test("code and reason of the server's Close reach us", options, using(async client => {
      for (const [code, reason] of [[1000, "good bye"], [1001, ""], [1012, "restart"], [4321, "grüß"]]) {
        const socket = await client.opened(url(`/close?code=${code}&reason=${encodeURIComponent(reason)}`));
        await socket.expect("peer closed", `${code}`, reason);
        const { display, debug } = await socket.closed();
        assert.equal(display, `closed by the peer, code ${code}`);
        assert.ok(debug.includes(`reason: "${reason}"`), debug);
      }
    }));

    test("a server that goes without a Close is told apart from one that closes", options, using(async client => {
      const socket = await client.opened(url("/gone"));
      await socket.closed(/^(the peer ended the connection|reading or writing failed: .*) \| (PeerEnded|Io)/);
    }));

    test("the server chooses among the subprotocols that are offered, or none of them", options, using(async client => {
      for (const [offered, chosen] of [
        [["first", "second"], "second"], [["first", "third"], "first"], [["first"], "first"], [[], undefined],
      ]) {
        const socket = await client.opened(url("/echo"), ...offered.map(name => `subprotocol=${name}`));
        assert.deepEqual(socket.fields["sec-websocket-protocol"], chosen && [chosen]);
        await echoes(socket, [10]);
        socket.tell("close");
        await socket.closed();
      }
    }));

    test("the server sees fields, cookies and Origin as they were given", options, using(async client => {
      const socket = await client.opened(url("/seen?a=b"), "field=X-Field: one", "field=X-Field: two", "field=Cookie: a=b; c=d",
        "field=Authorization: Bearer xyz", "origin=https://example.com");
      const fields = JSON.parse((await socket.expect("message", "text"))[4]);
      assert.deepEqual(fields["x-field"], ["one", "two"]);
      assert.deepEqual(fields.cookie, ["a=b; c=d"]);
      assert.deepEqual(fields.authorization, ["Bearer xyz"]);
      assert.deepEqual(fields.origin, ["https://example.com"]);
      assert.deepEqual(fields.host, [`127.0.0.1:${servers[name].at}`]);
      assert.deepEqual(fields["sec-websocket-extensions"], undefined);
      socket.tell("close");
      await socket.closed();
    }));

    test("a refusal is the outcome, with the fields that say what is wanted", options, using(async client => {
      const socket = client.ws(url("/private"));
      await socket.closed(/^the server answered 401 Unauthorized to the opening handshake \| Connect\(Status/);
      assert.deepEqual(socket.fields["www-authenticate"], ['Basic realm="peers"']);
    }));

    test("a redirect is followed, unless it was asked not to be", options, using(async client => {
      const socket = await client.opened(url("/moved"), "field=Authorization: Bearer xyz");
      const fields = JSON.parse((await socket.expect("message", "text"))[4]);
      assert.deepEqual(fields.authorization, ["Bearer xyz"], "it stays on the same server");
      socket.tell("close");
      await socket.closed();
      const refused = client.ws(url("/moved"), "redirects=0");
      await refused.closed(/^the server answered 302 Found .* Connect\(Status/);
      assert.deepEqual(refused.fields.location, ["/seen"]);
    }));

    test("over TLS messages come back as they were", options, using(async client => {
      const port = servers[name].secure.server;
      for (const [host, version] of combinations([["localhost", "127.0.0.1"], ["1.2", "1.3"]])) {
        const socket = client.ws(`wss://${host}:${port}/echo`, `roots=${file("ca.pem")}`, `version=${version}`);
        await socket.expect("connected", "101 Switching Protocols", `TLS ${version}`);
        await echoes(socket, [0, 1, 125, 65536, 1 << 20]);
        socket.tell("close");
        await socket.closed(/^closed by us, code/);
      }
    }));

    test("a certificate that nobody vouches for is refused with the reason, and accepted when that is asked for", options,
      using(async client => {
        const at = `wss://localhost:${servers[name].secure.alone}/echo`;
        await client.ws(at, `roots=${file("ca.pem")}`).closed(/^TLS failed: .* Connect\(Tls\(/);
        const roots = await client.opened(at, `roots=${file("alone.pem")}`);
        const dangerous = await client.opened(at, `roots=${file("ca.pem")}`, "self-signed");
        for (const socket of [roots, dangerous]) {
          await echoes(socket, [100]);
          socket.tell("close");
          await socket.closed();
        }
      }));

    test("a certificate for another name is refused with the reason, and accepted when that is asked for", options,
      using(async client => {
        const at = `wss://localhost:${servers[name].secure.elsewhere}/echo`;
        const { display, debug } = await client.ws(at, `roots=${file("ca.pem")}`).closed();
        assert.match(display, /name/);
        assert.match(debug, /^Connect\(Tls\(/);
        const socket = await client.opened(at, `roots=${file("ca.pem")}`, "any-name");
        socket.tell("close");
        await socket.closed();
      }));

    test("a plain server is no TLS server, and a TLS server no plain one", options, using(async client => {
      await client.ws(`wss://localhost:${servers[name].at}/`, `roots=${file("ca.pem")}`).closed(/ \| Connect\((Tls|Lost)/);
      const { debug } = await client.ws(`ws://localhost:${servers[name].secure.server}/`).closed();
      assert.match(debug, /^Connect\((Status|Exchange|Lost)/);
    }));

    test("what can be compressed takes few bytes on the way", options, using(async client => {
      const number = (name === "ws" ? nodes : pythons).findIndex(server => !Object.keys(server).some(key => /indow|akeover/.test(key)));
      const socket = await client.opened(servers[name].compressing[number], "deflate=true,true,15,15");
      assert.match(socket.fields["sec-websocket-extensions"].join(), /^permessage-deflate/);
      socket.tell("text", 1 << 20);
      await socket.expect("echo", "text", `${1 << 20}`);
      socket.tell("traffic");
      const [, sent, received] = await socket.expect("traffic");
      assert.ok(Number(sent) < 1 << 17 && Number(received) < 1 << 17, `${sent} bytes there, ${received} back`);
      socket.tell("close");
      await socket.closed();
    }));

    test("messages are compressed by every agreement that the two come to", options, using(async (client, context) => {
      const configurations = name === "ws" ? nodes : pythons;
      const jobs = combinations([configurations.map((_, number) => number), OFFERS]);
      let agreed = 0, refused = 0;
      const work = async () => {
        for (let job = jobs.pop(); job; job = jobs.pop()) {
          const [number, offer] = job;
          const what = `${JSON.stringify(configurations[number])} ${offer}`;
          const socket = client.ws(servers[name].compressing[number], `deflate=${offer}`);
          if (name === "ws" && declined(configurations[number], offer)) {
            await socket.closed(/^the server answered 400/);
            refused += 1;
            continue;
          }
          await socket.expect("connected");
          assert.match(socket.fields["sec-websocket-extensions"]?.join() ?? "none", /^permessage-deflate/, what);
          for (const [kind, size] of [["text", 3000], ["text", 3000], ["binary", 40_000], ["text", 10], ["binary", 40_000]]) {
            socket.tell(kind, size);
            await socket.expect("echo", kind, `${size}`);
          }
          socket.tell("close");
          await socket.closed(/^closed by us, code/);
          agreed += 1;
        }
      };
      await Promise.all(Array.from({ length: 8 }, work));
      context.diagnostic(`${agreed} agreements, ${refused} refusals`);
      assert.ok(agreed > 200);
    }));
  });
}
