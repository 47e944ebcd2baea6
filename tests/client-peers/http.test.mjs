// lodger's HTTP client against nginx, and the server of Node behind it and alone. `./check clients` runs it.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import http from "node:http";
import { before, test } from "node:test";
import {
  certificates, file, lines, listening, onFreePorts, options, run, sha1, soon, start, using, WebSocketServer, write,
} from "./support.mjs";

const page = Buffer.from("A page.\n".repeat(100));
const large = randomBytes(3 << 20);
const FLOOD = 64 << 20;
let plain, secure, origin;

/** The flood that is under way: how much of it was handed over, and whether all was. */
let flood;

/** Writes more than all buffers on the way hold, when they take it. */
async function pour(response) {
  flood = { sent: 0, ended: false, waits: 0 };
  const piece = Buffer.alloc(64 * 1024, "flood ");
  response.writeHead(200, { "Content-Length": FLOOD });
  while (flood.sent < FLOOD) {
    flood.sent += piece.length;
    if (!response.write(piece)) {
      flood.waits += 1;
      await once(response, "drain");
    }
  }
  response.end();
  flood.ended = true;
}

const targets = {
  "/chunks": (_, response) => {
    for (const piece of ["one, ", "two, ", "x".repeat(100_000)]) response.write(piece);
    response.end("three");
  },
  "/trailers": (_, response) => {
    response.writeHead(200, { Trailer: "X-Sum, X-Other" });
    response.write("with trailers");
    response.addTrailers({ "X-Sum": "13", "X-Other": "grün" });
    response.end();
  },
  "/hints": (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" });
    response.end("after hints");
  },
  "/flood": (_, response) => pour(response),
  "/sum": async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const content = Buffer.concat(pieces);
    const { "content-length": length = "none", "transfer-encoding": coding = "none", expect = "none" } = request.headers;
    response.end([request.method, content.length, sha1(content), length, coding, expect].join(" "));
  },
  "/seen": (request, response) => response.end(JSON.stringify(request.headers)),
  "/until-the-end": (_, response) => {
    response.shouldKeepAlive = false;
    response.useChunkedEncodingByDefault = false;
    response.removeHeader("transfer-encoding");
    response.end("a response that ends with its connection");
  },
  "/empty": (_, response) => { response.writeHead(204); response.end(); },
};

const configuration = (ports, names) => `
daemon off; master_process off; pid ${file("nginx.pid")}; error_log ${file("nginx.log")};
events { worker_connections 256; }
http {
  access_log off; ${names.map(name => `${name}_temp_path ${file(name)};`).join(" ")}
  server {
    listen 127.0.0.1:${ports[0]}; listen 127.0.0.1:${ports[1]} ssl; server_name localhost;
    ssl_certificate ${file("server.pem")}; ssl_certificate_key ${file("server.key")}; ssl_protocols TLSv1.2 TLSv1.3;
    root ${file("www")};
    add_header X-Protocol $ssl_protocol; add_header X-Connection $connection;
    location /few/ { keepalive_requests 10; alias ${file("www")}/; }
    location /small { client_max_body_size 1k; proxy_pass http://127.0.0.1:${origin}/sum; }
    location /node/ {
      client_max_body_size 16m; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection ""; proxy_pass http://127.0.0.1:${origin}/;
    }
    location /socket {
      proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
      proxy_pass http://127.0.0.1:${origin};
    }
    location /to-tls/ { return 301 https://localhost:${ports[1]}/page; }
    location /from-tls/ { return 302 http://localhost:${ports[0]}/page; }
    location /around/ { return 307 /around/; }
    location /slash { return 308 page?from=slash#there; }
  }
}`;

before(async () => {
  await certificates();
  mkdirSync(file("www"));
  write("www/page", page);
  write("www/large", large);
  const server = http.createServer((request, response) => {
    response.on("error", () => {});
    const handler = targets[request.url];
    if (handler) handler(request, response);
    else { response.writeHead(404); response.end(); }
  });
  new WebSocketServer({ server }).on("connection", socket => socket.on("message", (data, binary) => socket.send(data, { binary })));
  origin = await listening(server);
  const names = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const ports = await onFreePorts(2, ports => ["nginx", "-e", file("nginx.log"), "-c", write("nginx.conf", configuration(ports, names))]);
  [plain, secure] = [`http://localhost:${ports[0]}`, `https://localhost:${ports[1]}`];
}, { timeout: 60_000 });

const from = target => `http://127.0.0.1:${origin}${target}`;
const roots = () => `roots=${file("ca.pem")}`;

test("the servers say their versions", options, async context => {
  context.diagnostic(`${await run(["nginx", "-v"])}, Node ${process.version}`);
});

test("a file comes as it is, small or large", options, using(async client => {
  for (const [name, content] of [["page", page], ["large", large]]) {
    const exchange = client.http("GET", `${plain}/${name}`);
    await exchange.expect("connected", "no TLS");
    assert.equal(await exchange.response(200), `${content.length}`);
    await exchange.expect("complete", `${content.length}`, sha1(content));
    exchange.tell("close");
    await exchange.closed();
  }
}));

test("HEAD has the fields and no content, and the connection goes on", options, using(async client => {
  const exchange = client.http("HEAD", `${plain}/large`);
  await exchange.expect("connected");
  assert.equal(await exchange.response(200), `${large.length}`);
  await exchange.expect("complete", "0");
  exchange.tell("request", "GET", "target=/page");
  await exchange.page(200, page);
  exchange.tell("close");
  await exchange.closed();
}));

test("a range comes alone, and one that is not there not at all", options, using(async client => {
  const exchange = client.http("GET", `${plain}/large`, "header=Range: bytes=1000-70999");
  await exchange.expect("connected");
  await exchange.page(206, large.subarray(1000, 71000));
  assert.deepEqual(exchange.fields["content-range"], [`bytes 1000-70999/${large.length}`]);
  exchange.tell("request", "GET", `header=Range: bytes=${large.length}-`);
  await exchange.page(416);
  exchange.tell("close");
  await exchange.closed();
}));

test("what is not there is 404, what has not changed 304, and what has no content 204", options, using(async client => {
  const exchange = client.http("GET", `${plain}/nothing`);
  await exchange.expect("connected");
  await exchange.page(404);
  exchange.tell("request", "GET", "target=/page");
  await exchange.page(200, page);
  exchange.tell("request", "GET", "target=/page", `header=If-None-Match: ${exchange.fields.etag[0]}`);
  await exchange.page(304, "");
  exchange.tell("request", "GET", "target=/node/empty");
  await exchange.page(204, "");
  exchange.tell("request", "GET", "target=/page");
  await exchange.page(200, page);
  exchange.tell("close");
  await exchange.closed();
}));

test("chunks come without their coding, through nginx and straight", options, using(async client => {
  for (const url of [`${plain}/node/chunks`, from("/chunks")]) {
    const exchange = client.http("GET", url);
    await exchange.expect("connected");
    assert.equal(await exchange.response(200), "unknown");
    assert.deepEqual(exchange.fields["transfer-encoding"], ["chunked"]);
    const content = `one, two, ${"x".repeat(100_000)}three`;
    await exchange.expect("complete", `${content.length}`, sha1(content));
    exchange.tell("close");
    await exchange.closed();
  }
}));

test("trailers come after the content", options, using(async client => {
  const exchange = client.http("GET", from("/trailers"));
  await exchange.expect("connected");
  await exchange.response(200);
  await exchange.expect("trailer", "X-Sum", "13");
  await exchange.expect("trailer", "X-Other");
  await exchange.expect("complete", "13", sha1("with trailers"));
  exchange.tell("close");
  await exchange.closed();
}));

test("an interim response is told, and the final one after it", options, using(async client => {
  const exchange = client.http("GET", from("/hints"));
  await exchange.expect("connected");
  await exchange.expect("interim", "103");
  assert.deepEqual(exchange.fields.link, ["</style.css>; rel=preload; as=style"]);
  await exchange.page(200, "after hints");
  exchange.tell("close");
  await exchange.closed();
}));

test("content that ends with its connection is complete", options, using(async client => {
  const exchange = client.http("GET", from("/until-the-end"));
  await exchange.expect("connected");
  assert.equal(await exchange.response(200), "unknown");
  const content = "a response that ends with its connection";
  await exchange.expect("complete", `${content.length}`, sha1(content));
  await exchange.closed(/Completed/);
}));

test("a hundred requests go over one connection, plain and by TLS", options, using(async client => {
  for (const [url, ...more] of [[`${plain}/page`], [`${secure}/page`, roots()]]) {
    const exchange = client.http("GET", url, ...more);
    await exchange.expect("connected");
    const connections = new Set();
    for (let count = 1; count <= 100; count += 1) {
      await exchange.page(200, page);
      connections.add(exchange.fields["x-connection"].join());
      if (count < 100) exchange.tell("request", "GET");
    }
    assert.equal(connections.size, 1);
    exchange.tell("close");
    await exchange.closed();
  }
}));

test("where the server wants no more requests the last is complete, and the connection ends", options, using(async client => {
  const exchange = client.http("GET", `${plain}/few/page`);
  await exchange.expect("connected");
  for (let count = 1; count <= 10; count += 1) {
    await exchange.page(200, page);
    assert.deepEqual(exchange.fields.connection, [count < 10 ? "keep-alive" : "close"]);
    if (count < 10) exchange.tell("request", "GET");
  }
  await exchange.closed(/^exchange complete/);
}));

test("a request that ends its connection does", options, using(async client => {
  const exchange = client.http("GET", `${plain}/page`, "end");
  await exchange.expect("connected");
  await exchange.page(200, page);
  assert.deepEqual(exchange.fields.connection, ["close"]);
  await exchange.closed(/^exchange complete/);
}));

/** What `content` of options.rs makes. */
const content = length => Buffer.from(Uint8Array.from({ length }, (_, at) => at * 31 + Math.floor(at / 256) * 7));

test("content of every kind arrives, with and without asking first", options, using(async client => {
  for (const url of [`${plain}/node/sum`, from("/sum")]) {
    const exchange = client.http("POST", url, "content=0");
    await exchange.expect("connected");
    await exchange.page(200, `POST 0 ${sha1("")} 0 none none`);
    for (const length of [1, 1000, 1 << 20]) {
      for (const kind of ["content", "stream", "chunked"]) {
        for (const expect of [[], ["expect"]]) {
          exchange.tell("request", "PUT", `${kind}=${length}`, ...expect);
          // nginx takes the content in before it hands it on, and then it has a length.
          const through = url.startsWith(plain);
          const how = kind === "chunked" && !through ? "none chunked" : `${length} none`;
          const asked = expect.length > 0 && !through ? "100-continue" : "none";
          await exchange.page(200, `PUT ${length} ${sha1(content(length))} ${how} ${asked}`);
        }
      }
    }
    exchange.tell("close");
    await exchange.closed();
  }
}));

test("content that the server will not have is not sent when it was asked first", options, using(async client => {
  for (const kind of ["content", "stream", "chunked"]) {
    const exchange = client.http("POST", `${plain}/small`, `${kind}=${4 << 20}`, "expect");
    await exchange.expect("connected");
    await exchange.response(413);
    await exchange.expect("complete");
    await exchange.closed(/^exchange complete/);
  }
}));

test("an answer that comes before the content is sent is heard all the same", options, using(async client => {
  for (const kind of ["content", "stream"]) {
    const exchange = client.http("POST", `${plain}/small`, `${kind}=${8 << 20}`);
    await exchange.expect("connected");
    await exchange.response(413);
    for (;;) {
      const [what, display] = await exchange.next();
      if (what === "closed") {
        assert.equal(display, "exchange complete");
        break;
      }
      assert.match(what, /^(complete|not sent)$/);
    }
  }
}));

test("a redirect leads to TLS, and never from it", options, using(async client => {
  const there = client.http("GET", `${plain}/to-tls/`, roots());
  await there.expect("connected", "no TLS");
  await there.page(200, page);
  assert.match(there.fields["x-protocol"].join(), /^TLSv1\.[23]$/);
  there.tell("close");
  await there.closed();
  const back = client.http("GET", `${secure}/from-tls/`, roots());
  await back.expect("connected");
  await back.closed(/Exchange\(Redirect\(Insecure\)\)/);
  const around = client.http("GET", `${plain}/around/`);
  await around.expect("connected");
  await around.closed(/Exchange\(Redirect\(TooMany\)\)/);
  const relative = client.http("GET", `${plain}/slash`);
  await relative.expect("connected");
  await relative.page(200, page);
  relative.tell("close");
  await relative.closed();
  const untouched = client.http("GET", `${plain}/to-tls/`, "redirects=0");
  await untouched.expect("connected");
  await untouched.page(301);
  untouched.tell("close");
  await untouched.closed();
}));

test("TLS is spoken in both versions, to a name and to an address", options, using(async client => {
  for (const version of ["1.2", "1.3"]) {
    for (const url of [secure, secure.replace("localhost", "127.0.0.1")]) {
      const exchange = client.http("GET", `${url}/large`, roots(), `version=${version}`);
      await exchange.expect("connected", `TLS ${version}`);
      await exchange.page(200, large);
      assert.deepEqual(exchange.fields["x-protocol"], [`TLSv${version}`]);
      exchange.tell("close");
      await exchange.closed();
    }
  }
}));

test("a server that nobody vouches for is refused, and plain HTTP at the port of TLS is told so", options, using(async client => {
  const refused = client.http("GET", `${secure}/page`, `roots=${file("elsewhere.pem")}`);
  await refused.closed(/^TLS failed: .*Connect\(Tls\(/);
  const mistaken = client.http("GET", `${secure.replace("https", "http")}/page`);
  await mistaken.expect("connected");
  await mistaken.page(400);
  await mistaken.closed();
}));

/** Until the flood has stood still for a while, or has all been sent. */
async function still() {
  for (let before = -1; flood?.sent !== before && !flood?.ended;) {
    before = flood?.sent;
    await new Promise(done => setTimeout(done, 300));
  }
}

for (const [how, at] of [["through nginx", () => `${plain}/node/flood`], ["by TLS through nginx", () => `${secure}/node/flood`], ["straight", () => from("/flood")]]) {
  test(`while the reader is paused the socket is not read, ${how}`, options, using(async client => {
    flood = undefined;
    const exchange = client.http("GET", at(), roots(), "pause-at=100000", "receive-buffer=65536");
    await exchange.expect("connected");
    assert.equal(await exchange.response(200), `${FLOOD}`);
    const [, received] = await exchange.expect("paused");
    assert.ok(Number(received) < 1 << 20, received);
    await soon(still(), "end of the flood's rise");
    assert.ok(!flood.ended && flood.sent < FLOOD / 2, `${flood.sent} of ${FLOOD} bytes were sent`);
    exchange.tell("resume");
    await exchange.expect("complete", `${FLOOD}`);
    assert.ok(flood.waits > 0);
    exchange.tell("close");
    await exchange.closed();
  }));
}

test("a server of HTTP/1.0 is understood", options, using(async client => {
  const server = lines(start(["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", file("www"), "0"]));
  const [, at] = (await server()).match(/(http:\/\/127\.0\.0\.1:\d+)\//);
  for (const [method, content] of [["GET", page], ["HEAD", ""]]) {
    const exchange = client.http(method, `${at}/page`);
    await exchange.expect("connected");
    await exchange.page(200, content);
    await exchange.closed(/^exchange complete/);
  }
}));

test("a WebSocket goes through nginx, and is refused where nginx knows none", options, using(async client => {
  for (const [url, version] of [[plain, "no TLS"], [secure, "TLS 1.3"]]) {
    const socket = client.ws(`${url.replace("http", "ws")}/socket`, roots());
    await socket.expect("connected", "101 Switching Protocols", version);
    for (const size of [0, 1000, 1 << 20]) {
      socket.tell("binary", size);
      await socket.expect("echo", "binary", `${size}`);
    }
    socket.tell("close");
    await socket.closed(/^closed by us, code/);
    await client.ws(`${url.replace("http", "ws")}/page`, roots()).closed(/^the server answered 200 OK .*Connect\(Status/);
  }
}));

test("a server that ends within a response is found out", options, using(async client => {
  flood = undefined;
  const broken = http.createServer((_, response) => {
    response.writeHead(200, { "Content-Length": 1000 });
    response.write("too little", () => response.destroy());
  });
  const port = await listening(broken);
  const exchange = client.http("GET", `http://127.0.0.1:${port}/`);
  await exchange.expect("connected");
  await exchange.response(200);
  await exchange.closed(/Exchange\(Truncated\)|Io\(/);
}));
