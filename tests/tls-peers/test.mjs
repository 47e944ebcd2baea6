// TLS as others speak it: openssl's client, curl and sslscan against lodger. `./check tls` runs it.
//
// ECHO is the echo server, TLS_PEERS_SERVER the program of server.rs; SUMMARY is where sslscan's output goes.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";

const programs = {
  echo: path.resolve(process.env.ECHO ?? "target/release/examples/echo"),
  server: path.resolve(process.env.TLS_PEERS_SERVER ?? "target/release/examples/tls-peers-server"),
};
const folder = mkdtempSync(path.join(os.tmpdir(), "lodger-tls-"));
const file = name => path.join(folder, name);
const running = new Set();
const PATIENCE = 30_000;

/** Runs a program to its end. `steps` are what it is told, and what it has to say before the next one and before its input ends. */
async function run(command, steps = []) {
  const child = spawn(command[0], command.slice(1), { timeout: PATIENCE, killSignal: "SIGKILL" });
  let output = "", errors = "", told = -1;
  const advance = () => {
    while (told < 0 || (told < steps.length && `${output}${errors}`.match(steps[told][1] ?? ""))) {
      told += 1;
      if (told < steps.length) child.stdin.write(steps[told][0]);
      else child.stdin.end();
    }
  };
  child.stdout.on("data", data => { output += data; advance(); });
  child.stderr.on("data", data => { errors += data; advance(); });
  // It may have ended before it was told everything.
  child.stdin.on("error", () => {});
  advance();
  const [status] = await once(child, "close");
  return { status, output, errors, all: `${output}${errors}` };
}

/** The same, of something that must succeed. */
async function succeed(command, steps) {
  const ended = await run(command, steps);
  assert.equal(ended.status, 0, `${command.join(" ")}\n${ended.all}`);
  return ended;
}

/** Starts a server, and waits until it says where it listens. */
async function start(command) {
  const child = spawn(command[0], command.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const said = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const address = (await said.next()).value?.match(/^listening on (.+:(\d+))$/);
  assert.ok(address, `${command[0]} says where it listens`);
  const stop = async () => {
    const ended = once(child, "exit");
    assert.ok(child.exitCode === null && child.kill(), "it was still running");
    await ended;
    running.delete(child);
  };
  return { address: address[1], port: address[2], said: async () => (await said.next()).value, stop };
}

/** A server of the test's own, which says what it knows of each handshake; ended after `body`. */
async function serving(options, body) {
  const server = await start([programs.server, file("server.pem"), file("server.key"), ...options]);
  try {
    await body(server);
  } finally {
    await server.stop();
  }
}

/** openssl's client asks for a page, and stays until the answer is there. */
const GET = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const client = (server, ...options) => [
  "openssl", "s_client", "-connect", server.address, "-servername", "localhost", "-verify_hostname", "localhost",
  "-CAfile", file("ca.pem"), "-verify_return_error", ...options,
];
const ask = (server, ...options) => run([...client(server, ...options), "-ign_eof"], [[GET]]);
const fetched = async (server, ...options) => {
  const answer = await ask(server, ...options);
  assert.equal(answer.status, 0, answer.all);
  assert.match(answer.output, /Verify return code: 0 \(ok\)/);
  assert.match(answer.output, /HTTP\/1\.1 200/, answer.all);
  return answer;
};

/** A key and a certificate for it, signed by `issuer`, or by itself. */
async function certificate(name, { key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], issuer, extensions }) {
  const signed = issuer ? ["-CA", file(`${issuer}.pem`), "-CAkey", file(`${issuer}.key`)] : [];
  await succeed([
    "openssl", "req", "-x509", "-newkey", ...key, "-nodes", "-keyout", file(`${name}.key`), "-out", file(`${name}.pem`),
    "-subj", `/CN=${name}`, "-days", "2", ...signed, ...extensions.flatMap(extension => ["-addext", extension]),
  ]);
}

before(async () => {
  const authority = { extensions: ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"] };
  const names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
  const leaf = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"];
  await Promise.all([certificate("ca", authority), certificate("other-ca", authority)]);
  await Promise.all([
    certificate("server", { issuer: "ca", extensions: [...leaf, names] }),
    certificate("rsa", { key: ["rsa:2048"], issuer: "ca", extensions: [...leaf, names] }),
    certificate("client", { issuer: "ca", extensions: [...leaf, "extendedKeyUsage=clientAuth"] }),
    certificate("stranger", { issuer: "other-ca", extensions: [...leaf, "extendedKeyUsage=clientAuth"] }),
  ]);
}, { timeout: 60_000 });

after(() => {
  running.forEach(child => child.kill("SIGKILL"));
  rmSync(folder, { recursive: true, force: true });
});

const options = { timeout: 120_000 };

test("openssl verifies the server and gets an answer over TLS 1.2 and 1.3", options, () => serving([], async server => {
  for (const [flag, version] of [["-tls1_2", "1.2"], ["-tls1_3", "1.3"]]) {
    const { output } = await fetched(server, flag, "-alpn", "http/1.1");
    const told = await server.said();
    assert.match(told, new RegExp(`^secured version=TLS ${version} .* name=localhost alpn=http/1\\.1 resumed=false certificates=0$`));
    assert.ok(output.includes(told), "the handler's answer came through");
    assert.match(output, new RegExp(`New, TLSv${version}, Cipher is `));
  }
}));

test("openssl gets through with each cipher suite and group that is offered", options, () => serving([], async server => {
  for (const suite of ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]) {
    await fetched(server, "-tls1_3", "-ciphersuites", suite);
    assert.ok((await server.said()).includes(`suite=${suite.replace("TLS", "TLS13")} `));
  }
  for (const suite of ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"]) {
    const { output } = await fetched(server, "-tls1_2", "-cipher", `ECDHE-ECDSA-${suite}`);
    assert.ok(output.includes(`Cipher is ECDHE-ECDSA-${suite}`));
    await server.said();
  }
  for (const [group, name] of [["X25519", "X25519"], ["P-256", "secp256r1"], ["P-384", "secp384r1"]]) {
    await fetched(server, "-tls1_3", "-groups", group);
    assert.ok((await server.said()).includes(`group=${name} `));
  }
}));

test("a key share that does not fit is asked for again", options, () => serving([], async server => {
  const { output } = await fetched(server, "-tls1_3", "-groups", "P-521:P-256", "-msg");
  assert.ok((await server.said()).includes("group=secp256r1 "));
  assert.equal(output.match(/>>> .*ClientHello/g).length, 2, "HelloRetryRequest");
}));

test("an RSA certificate is served with both versions", options, async () => {
  const server = await start([programs.echo, "--listen", "127.0.0.1:0", "--tls-cert", file("rsa.pem"), "--tls-key", file("rsa.key")]);
  for (const version of ["-tls1_2", "-tls1_3"]) {
    assert.match((await fetched(server, version)).output, /Peer signature type: RSA-PSS/);
  }
  await server.stop();
});

test("openssl resumes a session of TLS 1.2 five times", options, () => serving([], async server => {
  const { output } = await succeed([...client(server, "-tls1_2", "-reconnect")], [["Q\n"]]);
  assert.equal(output.match(/^Reused, TLSv1\.2/gm)?.length, 5);
  assert.equal(output.match(/^New, TLSv1\.2/gm)?.length, 1);
  for (const resumed of [false, true, true, true, true, true]) {
    assert.ok((await server.said()).includes(`resumed=${resumed} `));
  }
}));

test("openssl resumes a session that was kept in a file", options, () => serving([], async server => {
  for (const version of ["-tls1_2", "-tls1_3"]) {
    const session = file(`session${version}`);
    await fetched(server, version, "-sess_out", session);
    assert.ok((await server.said()).includes("resumed=false "));
    const { output } = await fetched(server, version, "-sess_in", session);
    assert.match(output, /^Reused, /m);
    assert.ok((await server.said()).includes("resumed=true "));
  }
}));

test("a session of another server is not resumed, and the handshake is a full one", options, async () => {
  await serving([], first => fetched(first, "-tls1_3", "-sess_out", file("session-elsewhere")));
  await serving([], async second => {
    const { output } = await fetched(second, "-tls1_3", "-sess_in", file("session-elsewhere"));
    assert.match(output, /^New, TLSv1\.3/m);
    assert.ok((await second.said()).includes("resumed=false "));
  });
});

test("a client that trusts another authority, or expects another name, leaves, and the server is told", options, () =>
  serving([], async server => {
    for (const [wrong, alert] of [[["-CAfile", file("other-ca.pem")], "unknown_ca"], [["-verify_hostname", "elsewhere.example"], "bad_certificate"]]) {
      const { status, all } = await ask(server, ...wrong);
      assert.equal(status, 1, all);
      assert.match(all, /certificate verify failed/);
      assert.match(await server.said(), new RegExp(`^failed the peer sent the alert ${alert} `));
    }
  }));

test("a certificate is required: with one it goes on, without or with a stranger's it does not", options, () =>
  serving(["--require", file("ca.pem")], async server => {
    for (const version of ["-tls1_2", "-tls1_3"]) {
      await fetched(server, version, "-cert", file("client.pem"), "-key", file("client.key"));
      assert.match(await server.said(), /^secured .* certificates=[12]$/);

      const without = await ask(server, version);
      assert.match(without.all, /alert certificate required/);
      assert.doesNotMatch(without.all, /HTTP\/1\.1/);
      assert.equal(await server.said(), "failed the peer showed no certificate, and one is required");

      const stranger = await ask(server, version, "-cert", file("stranger.pem"), "-key", file("stranger.key"));
      assert.match(stranger.all, /alert unknown ca/);
      assert.doesNotMatch(stranger.all, /HTTP\/1\.1/);
      assert.match(await server.said(), /^failed no trusted root vouches for the peer's certificate/);
    }
  }));

test("a certificate is allowed: without one it goes on too", options, () =>
  serving(["--allow", file("ca.pem")], async server => {
    await fetched(server);
    assert.match(await server.said(), / certificates=0$/);
    await fetched(server, "-cert", file("client.pem"), "-key", file("client.key"));
    assert.match(await server.said(), / certificates=[12]$/);
    const stranger = await ask(server, "-cert", file("stranger.pem"), "-key", file("stranger.key"));
    assert.match(stranger.all, /alert unknown ca/);
  }));

test("a certificate that verifies can be refused by the application still", options, () =>
  serving(["--allow", file("ca.pem"), "--refuse"], async server => {
    const { all } = await ask(server, "-cert", file("client.pem"), "-key", file("client.key"));
    assert.doesNotMatch(all, /HTTP\/1\.1/);
    assert.match(await server.said(), / certificates=[12]$/);
  }));

test("older versions, another protocol and plain text are refused with the reason", options, () => serving([], async server => {
  for (const version of ["-tls1", "-tls1_1"]) {
    const { all } = await ask(server, version, "-cipher", "DEFAULT:@SECLEVEL=0");
    // Which of the two things that such a client lacks is found first, rustls decides.
    assert.match(all, /alert (protocol version|handshake failure)/);
    assert.match(await server.said(), /^failed (no TLS version in common|the peer does not fit: SignatureAlgorithmsExtensionRequired)/);
  }
  const other = await ask(server, "-alpn", "h2");
  assert.match(other.all, /alert no application protocol/);
  assert.equal(await server.said(), "failed no application protocol in common with the peer (ALPN)");
  const suite = await ask(server, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA");
  assert.match(suite.all, /alert handshake failure/);
  assert.equal(await server.said(), "failed no cipher suite in common with the peer");
  const plain = await run(["curl", "-sS", `http://${server.address}/`]);
  assert.notEqual(plain.status, 0, plain.all);
  assert.equal(await server.said(), "failed the peer does not speak TLS; plain HTTP, perhaps");
}));

test("renegotiation is refused", options, () => serving([], async server => {
  const { all } = await run(client(server, "-tls1_2"), [["R\n", /RENEGOTIATING/]]);
  assert.match(all, /RENEGOTIATING/);
  assert.match(all, /no renegotiation/);
}));

test("keys are updated while a connection is up", options, () => serving([], async server => {
  const { output } = await run(client(server, "-tls1_3"), [["K\n", /KEYUPDATE/], [GET, /certificates=0/]]);
  assert.match(output, /HTTP\/1\.1 200/);
}));

/** curl, which verifies, at `server` by its name. */
const curl = (server, ...more) => [
  "curl", "-sS", "--max-time", "20", "--cacert", file("ca.pem"), "--resolve", `localhost:${server.port}:127.0.0.1`, ...more,
];

async function echoing(body, ...more) {
  const files = ["--tls-cert", file("server.pem"), "--tls-key", file("server.key")];
  const server = await start([programs.echo, "--listen", "127.0.0.1:0", ...files, ...more]);
  try {
    await body(server, `https://localhost:${server.port}/`);
  } finally {
    await server.stop();
  }
}

for (const loop of ["poll", "epoll"]) {
  test(`curl gets a page, and uses its connection again, in ${loop}`, options, () => echoing(async (server, url) => {
    for (const version of [["--tls-max", "1.2"], ["--tlsv1.3"]]) {
      const told = "%{http_version} %{ssl_verify_result} %{num_connects} %{response_code}\n";
      const both = [url, "-o", file("page"), "-w", told];
      const { output } = await succeed(curl(server, ...version, ...both, ...both));
      assert.equal(output, "1.1 0 1 200\n1.1 0 0 200\n");
      assert.match(readFileSync(file("page"), "utf8"), /^An echo server/);
    }
  }, "--loop", loop));

  test(`curl sends twelve megabytes and gets them back, in ${loop}`, options, () => echoing(async (server, url) => {
    const content = randomBytes(12 * 1024 * 1024 + 1);
    writeFileSync(file("content"), content);
    for (const more of [["--tls-max", "1.2"], ["--tlsv1.3"], ["-H", "Transfer-Encoding: chunked"], ["--limit-rate", "24M"]]) {
      await succeed(curl(server, ...more, "--data-binary", `@${file("content")}`, "-o", file("returned"), url));
      const digest = bytes => createHash("sha256").update(bytes).digest("hex");
      assert.equal(digest(readFileSync(file("returned"))), digest(content));
    }
  }, "--loop", loop));
}

test("curl refuses a server that it has no reason to trust", options, () => echoing(async (server, url) => {
  const { status } = await run(curl(server, "--cacert", file("other-ca.pem"), url));
  assert.equal(status, 60, "the peer's certificate cannot be authenticated");
  await succeed(curl(server, "-o", file("page"), url));
}));

/** What an attribute list of sslscan's XML says. */
const elements = (xml, name) => [...xml.matchAll(new RegExp(`<${name} ([^>]*?)/?>`, "g"))].map(([, attributes]) =>
  Object.fromEntries([...attributes.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value])));

for (const [name, suites] of [["server", "ECDSA"], ["rsa", "RSA"]]) {
  test(`sslscan finds no weakness in a server with ${name === "rsa" ? "an RSA" : "an ECDSA"} certificate`, options, async () => {
    const server = await start([programs.echo, "--listen", "127.0.0.1:0", "--tls-cert", file(`${name}.pem`), "--tls-key", file(`${name}.key`)]);
    const { output } = await succeed(["sslscan", "--no-colour", "--sni-name=localhost", `--xml=${file("scan.xml")}`, server.address]);
    await server.stop();
    if (process.env.SUMMARY) writeFileSync(`${process.env.SUMMARY}-${suites.toLowerCase()}.txt`, output);
    const xml = readFileSync(file("scan.xml"), "utf8");

    const protocols = elements(xml, "protocol").map(({ type, version, enabled }) => `${type} ${version} ${enabled}`);
    assert.deepEqual(protocols.sort(),
      ["ssl 2 0", "ssl 3 0", "tls 1.0 0", "tls 1.1 0", "tls 1.2 1", "tls 1.3 1"], "versions");
    const ciphers = elements(xml, "cipher");
    assert.deepEqual(ciphers.map(({ cipher }) => cipher).sort(), [
      `ECDHE-${suites}-AES128-GCM-SHA256`, `ECDHE-${suites}-AES256-GCM-SHA384`, `ECDHE-${suites}-CHACHA20-POLY1305`,
      "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    ]);
    for (const { cipher, strength, bits } of ciphers) {
      assert.ok(["strong", "acceptable"].includes(strength) && Number(bits) >= 128, `${cipher} is ${strength}`);
    }
    for (const { name, bits } of elements(xml, "group")) assert.ok(Number(bits) >= 128, name);
    for (const { supported } of elements(xml, "renegotiation")) assert.equal(supported, "0", "renegotiation");
    for (const { supported } of elements(xml, "compression")) assert.equal(supported, "0", "compression");
    const heartbleed = elements(xml, "heartbleed");
    assert.ok(heartbleed.length === 2 && heartbleed.every(({ vulnerable }) => vulnerable === "0"), "heartbleed");
    assert.match(xml, /<signature-algorithm>(ecdsa-with-SHA256|sha256WithRSAEncryption)</);
    assert.doesNotMatch(xml, /<pk error="true"|<self-signed>true|<expired>true/);
  });
}
