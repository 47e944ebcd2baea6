// What a person sees of examples/existing_server, in Debian's headless Chromium. `./check browser` runs it.
//
// EXISTING_SERVER is the program, BROWSER_TOOLS the folder in which playwright-core is installed (this one by default),
// CHROMIUM the browser, SCREENSHOT where a picture goes. With TLS set, all of it is over https and wss.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const tools = path.resolve(process.env.BROWSER_TOOLS ?? path.dirname(fileURLToPath(import.meta.url)), "package.json");
const { chromium } = createRequire(tools)("playwright-core");
const program = path.resolve(process.env.EXISTING_SERVER ?? "target/release/examples/existing_server");
const folder = mkdtempSync(path.join(os.tmpdir(), "lodger-browser-"));
const fifo = path.join(folder, "house");

const tls = process.env.TLS ? certificate() : null;

let server, browser, desk;

/** Makes a certificate for this run; the browser is told to accept this key, and no other that it has no reason to trust. */
function certificate() {
  const files = { cert: path.join(folder, "chain.pem"), key: path.join(folder, "key.pem") };
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    "-keyout", files.key, "-out", files.cert], { stdio: "ignore" });
  const pem = readFileSync(files.cert);
  const key = new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" });
  return { ...files, pem, hash: createHash("sha256").update(key).digest("base64") };
}

/** Starts the server at `listen` and waits until it says where it listens. */
async function start(listen) {
  const secure = tls ? ["--tls-cert", tls.cert, "--tls-key", tls.key] : [];
  const process = spawn(program, ["--listen", listen, "--line-listen", "127.0.0.1:0", "--fifo", fifo, ...secure], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const said = readline.createInterface({ input: process.stdout })[Symbol.asyncIterator]();
  const page = (await said.next()).value?.match(tls ? /^listening on (https:\/\/(.+)\/)$/ : /^listening on (http:\/\/(.+)\/)$/);
  const lines = (await said.next()).value?.match(/^lines on (.+):(\d+)$/);
  assert.ok(page && lines, `${program} says where it listens`);
  return { process, url: page[1], address: page[2], lines: { host: lines[1], port: Number(lines[2]) } };
}

/** Ends the server as a service manager would, and expects it to end well. */
async function stop({ process }, signal) {
  const ended = once(process, "exit");
  process.kill(signal);
  assert.deepEqual(await ended, [0, null], `${signal} ends the server cleanly`);
}

/** A browser window of its own on the page, connected. */
async function open(options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })).newPage();
  page.setDefaultTimeout(15_000);
  page.on("pageerror", error => { throw error; });
  await page.goto(server.url);
  await page.waitForSelector("body:not(.gone)");
  return page;
}

const row = (page, text) => page.locator("#array tr", { hasText: text });
const strokes = page => page.evaluate(() => Number(document.getElementById("board").dataset.strokes));
const strokesReach = (page, count) =>
  page.waitForFunction(count => Number(document.getElementById("board").dataset.strokes) === count, count);
const picture = page => page.evaluate(() => document.getElementById("board").toDataURL());

/** Draws with the pointer through `points`, given as parts of the board, in the ink of that number. */
async function draw(page, ink, points) {
  await page.locator(".swatch").nth(ink).click();
  const box = await page.locator("#board").boundingBox();
  const [first, ...others] = points.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of others) await page.mouse.move(...point, { steps: 12 });
  await page.mouse.up();
}

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
      ...(tls ? [`--ignore-certificate-errors-spki-list=${tls.hash}`] : [])],
  });
  server = await start("127.0.0.1:0");
  desk = await open();
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  server?.process.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

const options = { timeout: 60_000 };

test("the table shows the server's descriptors and lodger's, and keeps counting", options, async () => {
  for (const role of ["signals", "tick", "line listener", "lines"]) {
    await row(desk, role).filter({ hasText: "server" }).first().waitFor();
  }
  assert.ok(await desk.locator("#array tr.lodger, #array tr:has(.owner.lodger)").count() >= 2, "listener and browser");
  const wakeups = () => row(desk, "timerfd").locator("td").nth(4).textContent().then(Number);
  const first = await wakeups();
  await desk.waitForFunction(first => [...document.querySelectorAll("#array tr")]
    .some(row => row.textContent.includes("timerfd") && Number(row.children[4].textContent) > first), first);
  const numbers = await desk.locator("#array td.fd").allTextContents();
  assert.equal(new Set(numbers).size, numbers.length, "no descriptor twice");
});

test("a line sent to the TCP port shows up, is answered, and its client is in the table", options, async () => {
  const client = net.connect(server.lines);
  client.write("hello over <b>TCP</b>\n");
  const [answer] = await once(client, "data");
  assert.match(String(answer), /^ok \d+\n$/);
  await desk.locator("#lines li", { hasText: "hello over <b>TCP</b>" }).locator(".from.tcp").waitFor();
  await row(desk, "line client").waitFor();
  client.end();
  await row(desk, "line client").waitFor({ state: "detached" });
});

test("a line written to the FIFO shows up", options, async () => {
  appendFileSync(fifo, "hello through the FIFO\n");
  await desk.locator("#lines li", { hasText: "hello through the FIFO" }).locator(".from.fifo").waitFor();
});

test("lines come from the child process and the timer too", options, async () => {
  await desk.locator("#lines .from.child").first().waitFor();
  await desk.locator("#lines .from.tick").first().waitFor();
});

test("a stroke in one window appears in the others, and in one opened later", options, async () => {
  const sofa = await open();
  const blank = await picture(sofa);
  await draw(desk, 4, [[0.22, 0.8], [0.22, 0.45], [0.5, 0.18], [0.78, 0.45], [0.78, 0.8], [0.22, 0.8]]);
  await draw(desk, 1, [[0.42, 0.8], [0.42, 0.56], [0.56, 0.56], [0.56, 0.8]]);
  await draw(sofa, 2, [[0.64, 0.56], [0.71, 0.56], [0.71, 0.65], [0.64, 0.65], [0.64, 0.56]]);
  // What was sent last arrives last, so a dot tells both that all is there.
  await draw(desk, 1, [[0.53, 0.69], [0.53, 0.69]]);
  await desk.evaluate(() => new Promise(requestAnimationFrame));
  let count;
  do {
    count = await strokes(desk);
    await strokesReach(sofa, count);
  } while (count !== await strokes(desk));
  assert.ok(count >= 4, `${count} strokes`);
  assert.notEqual(await picture(sofa), blank);
  assert.equal(await picture(sofa), await picture(desk));

  const late = await open();
  await strokesReach(late, count);
  assert.equal(await picture(late), await picture(desk));
  await late.context().close();
  await sofa.context().close();
});

test("the page fits a phone", options, async () => {
  const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  await row(phone, "tick").first().waitFor();
  assert.equal(await phone.evaluate(() => document.documentElement.scrollWidth), 390);
  assert.ok(await phone.evaluate(() => {
    const box = document.querySelector(".scroll");
    return box.scrollWidth <= box.clientWidth;
  }), "the table needs no scrolling aside");
  await phone.context().close();
});

test("a picture is taken", { ...options, skip: !process.env.SCREENSHOT }, async () => {
  const client = net.connect(server.lines);
  client.write("a line from the outside\n");
  await desk.locator("#lines li", { hasText: "a line from the outside" }).waitFor();
  await row(desk, "line client").waitFor();
  await desk.setViewportSize({ width: 1280, height: 1000 });
  await desk.mouse.move(0, 0);
  await desk.screenshot({ path: process.env.SCREENSHOT, animations: "disabled" });
  client.destroy();
});

test("a page from another origin is refused", options, async () => {
  const elsewhere = http.createServer((_, response) => response.end("<!doctype html><title>elsewhere</title>"));
  elsewhere.listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  const page = await (await browser.newContext()).newPage();
  await page.goto(`http://127.0.0.1:${elsewhere.address().port}/`);
  const outcome = address => page.evaluate(address => new Promise(resolve => {
    const socket = new WebSocket(address);
    socket.onopen = () => resolve("open");
    socket.onclose = event => resolve(event.code);
  }), address);
  assert.equal(await outcome(`${tls ? "wss" : "ws"}://${server.address}/live`), 1006);
  await page.context().close();
  elsewhere.close();
});

test("a foreign name that leads to this machine is not answered", options, async () => {
  const [host, port] = server.address.split(":");
  const headers = { Host: `elsewhere.example:${port}` };
  const request = tls
    ? https.get({ host, port, headers, ca: tls.pem, servername: "localhost" })
    : http.get({ host, port, headers });
  const [response] = await once(request, "response");
  response.resume();
  assert.equal(response.statusCode, 421);
});

test("the page dims when the server stops, and recovers when it is back", options, async () => {
  await stop(server, "SIGTERM");
  await desk.waitForSelector("body.gone");
  await desk.waitForFunction(() => Number(getComputedStyle(document.querySelector("main")).opacity) < 0.5);
  server = await start(server.address);
  await desk.waitForSelector("body:not(.gone)");
  await desk.waitForFunction(() => getComputedStyle(document.querySelector("main")).opacity === "1");
  await row(desk, "timerfd").waitFor();
  appendFileSync(fifo, "and back\n");
  await desk.locator("#lines li", { hasText: "and back" }).waitFor();
  await draw(desk, 3, [[0.2, 0.2], [0.3, 0.3]]);
  await desk.waitForFunction(() => Number(document.getElementById("board").dataset.strokes) > 0);
});

test("SIGINT ends the server too, and it takes its FIFO away", options, async () => {
  await stop(server, "SIGINT");
  assert.throws(() => appendFileSync(fifo, "", { flag: "r+" }), { code: "ENOENT" });
  await desk.waitForSelector("body.gone");
});
