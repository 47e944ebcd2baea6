// The ways that lodger's client takes: proxies of Debian's, and names. `./check clients` runs it.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import path from "node:path";
import { before, describe, test } from "node:test";
import { certificates, file, lines, listening, onFreePorts, options, run, start, using, WebSocketServer, write } from "./support.mjs";

/** A server that says who asked for what, and echoes messages. */
function serve(server) {
  server.on("request", (request, response) => response.end(`${request.method} ${request.url} of ${request.headers.host}`));
  new WebSocketServer({ server }).on("connection", socket => socket.on("message", (data, binary) => socket.send(data, { binary })));
  return server;
}

/** Another name of this machine than localhost, and its address. */
const [address, hostname] = readFileSync("/etc/hosts", "utf8").split("\n")
  .map(line => line.replace(/#.*/, "").trim().split(/\s+/))
  .flatMap(([address, ...names]) => names.map(name => [address, name]))
  .find(([address, name]) => address.startsWith("127.") && !/(^|\.)localhost$/.test(name)) ?? [];

/** The ports of the servers at 127.0.0.1, and of those at the address of that name. */
const here = {};
const named = {};
const proxies = {};

before(async () => {
  await certificates(hostname);
  const tls = { key: readFileSync(file("server.key")), cert: readFileSync(file("server.pem")) };
  for (const [ports, at] of [[here, "127.0.0.1"], [named, address]].slice(0, hostname ? 2 : 1)) {
    ports.plain = await listening(serve(http.createServer()), at);
    ports.secure = await listening(serve(https.createServer(tls)), at);
  }
  const tinyproxy = (name, more) => onFreePorts(1, ([port]) => ["tinyproxy", "-d", "-c", write(name, [
    `Port ${port}`, "Listen 127.0.0.1", "Timeout 60", "MaxClients 50", "LogLevel Connect", `LogFile "${file(`${name}.log`)}"`, ...more, "",
  ].join("\n"))]);
  const microsocks = more => onFreePorts(1, ([port]) => ["microsocks", "-i", "127.0.0.1", "-p", `${port}`, ...more]);
  [[proxies.http], [proxies["http-login"]], [proxies.socks5], [proxies["socks5-login"]]] = await Promise.all([
    tinyproxy("tinyproxy", []), tinyproxy("tinyproxy-login", ["BasicAuth ann open-sesame"]),
    microsocks([]), microsocks(["-u", "ann", "-P", "open-sesame"]),
  ]);
}, { timeout: 60_000 });

const roots = () => `roots=${file("ca.pem")}`;

/** A page and an echo through a proxy. */
async function through(client, proxy, host, ports = here) {
  for (const [scheme, secure] of [["http", false], ["https", true], ["ws", false], ["wss", true]]) {
    const at = `${host}:${ports[secure ? "secure" : "plain"]}`;
    const version = secure ? "TLS 1.3" : "no TLS";
    if (scheme.startsWith("http")) {
      const exchange = client.http("GET", `${scheme}://${at}/page?a=b`, `proxy=${proxy}`, roots());
      await exchange.expect("connected", version);
      await exchange.page(200, `GET /page?a=b of ${at}`);
      exchange.tell("request", "GET", "target=/again");
      await exchange.page(200, `GET /again of ${at}`);
      exchange.tell("close");
      await exchange.closed();
    } else {
      const socket = client.ws(`${scheme}://${at}/`, `proxy=${proxy}`, roots());
      await socket.expect("connected", "101 Switching Protocols", version);
      for (const [kind, size] of [["text", 1000], ["binary", 1 << 20]]) {
        socket.tell(kind, size);
        await socket.expect("echo", kind, `${size}`);
      }
      socket.tell("close");
      await socket.closed(/^closed by us, code/);
    }
  }
}

for (const [name, scheme, command] of [["tinyproxy", "http", ["tinyproxy", "-v"]], ["microsocks", "socks5"]]) {
  describe(`through ${name}`, () => {
    const at = (kind, login = "") => `${scheme}://${login}127.0.0.1:${proxies[`${scheme}${kind}`]}`;

    test("it says its version", options, async context => {
      const version = command ? await run(command) : await run(["dpkg-query", "-W", "-f", "${Package} ${Version}", name]);
      context.diagnostic(version);
    });

    // The client's own resolver leads astray.
    test("http, https, ws and wss reach a server whose name the proxy looks up", options, context => {
      if (!hostname) return context.skip("/etc/hosts has no other name than localhost");
      return using(client => through(client, at(""), hostname, named), `${hostname}=127.0.0.99`)(context);
    });

    test("they reach a server by its address", options, using(client => through(client, at(""), "127.0.0.1")));

    test("a proxy that wants credentials gets them", options, using(async client => {
      await through(client, at("-login", "ann:open-sesame@"), "localhost");
    }));

    test("a proxy that wants credentials and gets none is the outcome", options, using(async client => {
      for (const url of [`ws://localhost:${here.plain}/`, `wss://localhost:${here.secure}/`]) {
        await client.ws(url, `proxy=${at("-login")}`, roots()).closed(/^the proxy would not connect: .*Proxy\(CredentialsNeeded\)/);
      }
      await client.http("GET", `http://localhost:${here.plain}/`, `proxy=${at("-login")}`).closed(/Proxy\(CredentialsNeeded\)/);
    }));

    test("a wrong password is the outcome", options, using(async client => {
      const proxy = `proxy=${at("-login", "ann:wrong@")}`;
      await client.ws(`ws://localhost:${here.plain}/`, proxy).closed(/^the proxy would not connect: .*Proxy\(CredentialsRefused\)/);
      await client.http("GET", `https://localhost:${here.secure}/`, proxy, roots()).closed(/Proxy\(CredentialsRefused\)/);
    }));

    test("a server that the proxy does not reach is the outcome, and so is a name that it does not find", options,
      using(async client => {
        const refused = client.ws(`ws://127.0.0.1:${await unused()}/`, `proxy=${at("")}`);
        await refused.closed(/^the proxy would not connect.*Proxy\((Refused|Socks)/);
        // How long the proxy looks for it depends on the name servers.
        const unknown = client.ws(`ws://nobody.invalid:${here.plain}/`, `proxy=${at("")}`, "timeout=5000");
        await unknown.closed(/Proxy\((Refused|Socks)|TimedOut \{ step: Proxy/);
      }));

    test("a proxy that is not there is the outcome", options, using(async client => {
      const proxy = `${scheme}://127.0.0.1:${await unused()}`;
      await client.ws(`ws://localhost:${here.plain}/`, `proxy=${proxy}`).closed(/Connect\(Unreachable\(/);
    }));
  });
}

/** A port where nobody listens. */
async function unused() {
  const server = net.createServer();
  const port = await listening(server);
  await new Promise(done => server.close(done));
  return port;
}

const threads = client => readdirSync(`/proc/${client.child.pid}/task`)
  .map(id => readFileSync(`/proc/${client.child.pid}/task/${id}/comm`, "utf8").trim());

async function fetched(client, host, ports = here) {
  const exchange = client.http("GET", `http://${host}:${ports.plain}/`);
  await exchange.expect("connected");
  await exchange.page(200, `GET / of ${host}:${ports.plain}`);
  exchange.tell("close");
  await exchange.closed();
}

describe("names", () => {
  test("a name that does not exist is the outcome", options, using(async client => {
    const { display } = await client.ws(`ws://nobody.example:${here.plain}/`).closed(/Connect\(Resolve \{ .*error: NotFound/);
    assert.match(display, /^nobody\.example was not resolved: not found/);
    await fetched(client, "somebody.example");
  }, "somebody.example=127.0.0.1"));

  test("a name that is never answered is given up in time, and holds up nobody", options, using(async client => {
    const waiting = [1, 2, 3].map(() => client.ws(`ws://silent.example:${here.plain}/`, "timeout=1500"));
    await fetched(client, "somebody.example");
    for (const socket of waiting) await socket.closed(/^timed out while looking up the name .*TimedOut \{ step: Resolving/);
  }, "somebody.example=127.0.0.1", "silent.example=never"));

  const many = ["::1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"];
  test("of many addresses the last is reached when it alone works", options,
    using(client => fetched(client, "many.example"), `many.example=${many.join(",")},127.0.0.1`));

  test("of many addresses that do not work each is told", options, using(async client => {
    const { debug } = await client.ws(`ws://many.example:${here.plain}/`).closed(/Connect\(Unreachable\(/);
    for (const address of many) assert.ok(debug.includes(`Inet(${address.includes(":") ? `[${address}]` : address}:${here.plain})`), debug);
  }, `many.example=${many.join(",")}`));

  test("an address that never answers holds up the others for a moment only", options, async context => {
    const holes = ["127.0.0.9", "127.0.0.10"];
    for (const address of holes) {
      const hole = lines(start(["python3", path.join(import.meta.dirname, "hole.py"), address, `${here.plain}`]));
      assert.equal(await hole(), "ready");
    }
    await using(async client => {
      await fetched(client, "slow.example");
      await client.ws(`ws://deaf.example:${here.plain}/`, "timeout=1500").closed(/^timed out while connecting.*TimedOut \{ step: Connecting/);
    }, `slow.example=${holes.join(",")},127.0.0.1`, `deaf.example=${holes.join(",")}`)(context);
  });

  test("localhost needs no resolver and no thread", options, using(async client => {
    await fetched(client, "localhost");
    await fetched(client, "127.0.0.1");
    assert.deepEqual(threads(client).filter(name => name === "lodger-names"), []);
  }));

  test("another name of this machine is known to the system", options, using(async (client, context) => {
    if (!hostname) return context.skip("/etc/hosts has none");
    await fetched(client, hostname, named);
    assert.ok(threads(client).includes("lodger-names"), `${threads(client)}`);
    context.diagnostic(`${hostname} is ${address}`);
  }));

  test("a name that the system does not find is the outcome", options, using(async client => {
    // How long that takes depends on the name servers.
    const socket = client.ws(`ws://nobody.invalid:${here.plain}/`, "timeout=5000");
    await socket.closed(/Connect\(Resolve \{.*error: (NotFound|Again)|TimedOut \{ step: Resolving/);
  }));
});
