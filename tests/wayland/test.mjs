// What a person sees of examples/wayland: its window under Debian's weston, and its page in headless Chromium.
// `./check wayland` runs it.
//
// WAYLAND_EXAMPLE is the program, BROWSER_TOOLS the folder in which playwright-core is installed, CHROMIUM the browser,
// SCREENSHOT where a picture of both goes. It needs weston, Xvfb and xdotool. A weston without a screen takes what the page
// sends; it has no pointer and no keyboard either, so what the window feels comes from one in an X server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const tools = path.resolve(process.env.BROWSER_TOOLS ?? path.join(here, "../browser"), "package.json");
const { chromium } = createRequire(tools)("playwright-core");
const program = path.resolve(process.env.WAYLAND_EXAMPLE ?? "target/debug/lodger-examples-wayland");
const folder = mkdtempSync(path.join(os.tmpdir(), "lodger-wayland-"));
const SCREEN = { width: 1000, height: 760 };
const BACKGROUND = "39617f", INK = "1f2328", RED = "c0392b", GREEN = "2e8b57";

const started = new Set();
let browser, lens;

/** Starts a program that is ended with the tests. */
function start(command, args, options) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  child.said = "";
  child.stderr?.on("data", data => { child.said += data; });
  started.add(child);
  child.ended = once(child, "exit").finally(() => started.delete(child));
  return child;
}

/** Waits until `condition` answers something, and answers that. */
async function until(what, condition) {
  for (const patience = Date.now() + 20_000; Date.now() < patience; await setTimeout(50)) {
    const answer = await condition();
    if (answer) return answer;
  }
  assert.fail(`waited in vain until ${what}`);
}

/** Starts weston, and answers what its clients need in their environment. */
async function compositor(name, args, display = {}) {
  const runtime = mkdtempSync(path.join(folder, "run-"));
  const env = { ...process.env, ...display, XDG_RUNTIME_DIR: runtime };
  delete env.WAYLAND_DISPLAY;
  const weston = start("weston", [`--config=${path.join(here, "weston.ini")}`, `--socket=${name}`, "--idle-time=0",
    "--shell=desktop-shell.so", "--debug", "--use-pixman", `--width=${SCREEN.width}`, `--height=${SCREEN.height}`, ...args],
  { env, stdio: ["ignore", "ignore", "pipe"] });
  await until("weston listens", () => existsSync(path.join(runtime, name)) || weston.exitCode !== null);
  assert.equal(weston.exitCode, null, weston.said);
  return { weston, env: { ...env, WAYLAND_DISPLAY: name } };
}

/** Opens the example's window, and waits until it says where its page is. */
async function open({ env }) {
  const child = start(program, ["--listen", "127.0.0.1:0"], { env });
  const said = (await readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]().next()).value;
  const address = said?.match(/^listening on (.+:\d+)$/)?.[1];
  assert.ok(address, `${program} says where it listens: ${said} ${child.said}`);
  return { child, env, url: `http://${address}/` };
}

/** A browser window on the example's page, connected. */
async function visit({ url }, options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1120, height: 760 }, ...options })).newPage();
  page.setDefaultTimeout(15_000);
  page.on("pageerror", error => { throw error; });
  await page.goto(url);
  await page.waitForSelector("body:not(.gone)");
  await page.waitForFunction(() => size[0] > 1);
  return page;
}

/** A picture of the whole screen, as a `data:` address. */
async function screenshot({ env }) {
  const cwd = mkdtempSync(path.join(folder, "shot-"));
  const shooter = start("weston-screenshooter", [], { env, cwd });
  assert.deepEqual(await shooter.ended, [0, null], shooter.said);
  return `data:image/png;base64,${readFileSync(path.join(cwd, readdirSync(cwd)[0])).toString("base64")}`;
}

/** Where the window is on the screen, its colours at `points` of it, and how many of its pixels below `top` have `colour`. */
async function look(desk, { points = [], colour = "", top = 0 } = {}) {
  return lens.evaluate(async ({ shot, background, points, colour, top }) => {
    const image = new Image();
    image.src = shot;
    await image.decode();
    const { width, height } = image, pen = new OffscreenCanvas(width, height).getContext("2d");
    pen.drawImage(image, 0, 0);
    const data = new DataView(pen.getImageData(0, 0, width, height).data.buffer);
    const at = (x, y) => data.getUint32(4 * (y * width + x)) >>> 8;
    const [outside, wanted] = [background, colour].map(hex => parseInt(hex, 16));
    // The pointer may be in the picture too: a row or a column is the window's if more than a pointer is in it.
    const rows = Array(height).fill(0), columns = Array(width).fill(0);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (at(x, y) !== outside) { rows[y]++; columns[x]++; }
    const [across, down] = [columns, rows].map(counts => counts.flatMap((count, at) => count > 100 ? [at] : []));
    if (!across.length || !down.length) return null;
    const window = { x: across[0], y: down[0], width: across.length, height: down.length };
    let count = 0;
    for (const y of down.slice(top)) for (const x of across) if (at(x, y) === wanted) count++;
    const colours = points.map(([x, y]) => at(window.x + Math.round(x), window.y + Math.round(y)).toString(16).padStart(6, "0"));
    return { window, count, colours };
  }, { shot: await screenshot(desk), background: BACKGROUND, points, colour, top });
}

/** Draws with the page's pointer through `points`, given as parts of the board, in the ink of that name. */
async function draw(page, ink, points) {
  await page.locator(`.swatch[title=${ink}]`).click();
  const box = await page.locator("#board").boundingBox();
  const [first, ...others] = points.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of others) await page.mouse.move(...point, { steps: 12 });
  await page.mouse.up();
}

/** These parts of the board, as places in the window. */
async function places(page, parts) {
  const [left, top, width, height] = await page.evaluate(() => {
    const { left, top, width, height } = $("inner").style;
    return [parseFloat(left) * size[0], parseFloat(top) * size[1], parseFloat(width) * size[0], parseFloat(height) * size[1]]
      .map(number => number / 100);
  });
  return parts.map(([x, y]) => [left + x * width, top + y * height]);
}

const options = { timeout: 60_000 };
let plain, desk, page;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  lens = await browser.newPage();
  plain = await compositor("plain", ["--backend=headless-backend.so"]);
  desk = await open(plain);
  page = await visit(desk);
}, options);

after(async () => {
  await browser?.close();
  const all = [...started];
  all.forEach(child => child.kill());
  await Promise.all(all.map(child => child.ended));
  rmSync(folder, { recursive: true, force: true });
}, options);

test("the window appears, and the page knows its size", options, async () => {
  const { window } = await until("the window is there", () => look(desk));
  assert.deepEqual([window.width, window.height], await page.evaluate(() => size));
});

test("a stroke drawn in the page is in the window, where it was drawn and in its colour", options, async () => {
  const points = await places(page, [[0.3, 0.5], [0.5, 0.5], [0.7, 0.5]]);
  assert.ok(!(await look(desk, { points })).colours.includes(RED));
  await draw(page, "red", [[0.2, 0.5], [0.8, 0.5]]);
  await until("the window shows it", async () => (await look(desk, { points })).colours.every(colour => colour === RED));
});

test("text typed in the page is in the window, letter by letter", options, async () => {
  const [[, bottom]] = await places(page, [[1, 1]]);
  const ink = async () => (await look(desk, { colour: INK, top: bottom + 5 })).count;
  const counts = [await ink()];
  await page.locator("#text").focus();
  for (const letters of ["Hello", " from a page", ",\nin grün"]) {
    await page.keyboard.type(letters);
    counts.push(await until(`the window shows "${letters}"`, async () => {
      const count = await ink();
      return count > counts.at(-1) && count;
    }));
  }
});

test("a page opened later shows what the window shows, and what comes then", options, async () => {
  const late = await visit(desk);
  const strokes = page => page.evaluate(() => strokes.map(view => [...new Uint8Array(view.buffer)]));
  const typed = page => page.locator("#text").inputValue();
  await late.waitForFunction(() => strokes.length > 0);
  await draw(late, "blue", [[0.4, 0.4], [0.6, 0.6]]);
  const same = async what => assert.deepEqual(await what(late), await what(page));
  await until("both have all strokes", async () => (await strokes(late)).join() === (await strokes(page)).join());
  await same(typed);
  await late.context().close();
});

test("what is not a stroke ends the page's connection, and the page comes back", options, async () => {
  await page.evaluate(() => {
    window.first = socket;
    first.addEventListener("close", ({ code }) => { window.code = code; });
    first.send(new Uint8Array(5));
  });
  await page.waitForFunction(() => socket !== first && strokes.length > 0);
  assert.equal(await page.evaluate(() => code), 1008);
});

test("clearing the board clears it in the window", options, async () => {
  assert.ok((await look(desk, { colour: RED })).count > 0);
  await page.locator("#clear").click();
  await until("the window is clear", async () => (await look(desk, { colour: RED })).count === 0);
});

test("SIGTERM ends the program cleanly, and the page dims", options, async () => {
  desk.child.kill("SIGTERM");
  assert.deepEqual(await desk.child.ended, [0, null], desk.child.said);
  await page.waitForSelector("body.gone");
  await page.context().close();
});

test("a window without a compositor says what to do", options, async () => {
  const env = { ...plain.env, WAYLAND_DISPLAY: "nobody" };
  const child = start(program, ["--listen", "127.0.0.1:0"], { env });
  assert.deepEqual(await child.ended, [1, null]);
  assert.match(child.said, /no Wayland compositor.*WAYLAND_DISPLAY/);
});

test("a compositor that ends takes the program with it", options, async () => {
  const orphan = await open(plain);
  plain.weston.kill("SIGTERM");
  assert.deepEqual(await plain.weston.ended, [0, null], plain.weston.said);
  assert.deepEqual(await orphan.child.ended, [1, null]);
  assert.match(orphan.child.said, /^wayland: /m);
});

let nested;
const xdotool = async (...words) => {
  const child = start("xdotool", words.map(String), { env: nested.env });
  assert.deepEqual(await child.ended, [0, null], child.said);
};
const logged = (page, text) => page.waitForFunction(text => [...document.querySelectorAll("#log li")]
  .some(item => item.textContent.includes(text)), text);

test("the pointer in the window is in the page", options, async () => {
  // Larger than weston's window, so that the pointer, which begins in the middle, enters that.
  const x = start("Xvfb", ["-displayfd", "3", "-screen", "0", "2200x1700x24", "-nolisten", "tcp"],
    { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  const display = (await readline.createInterface({ input: x.stdio[3] })[Symbol.asyncIterator]().next()).value;
  nested = await compositor("nested", ["--backend=x11-backend.so"], { DISPLAY: `:${display}` });
  desk = await open(nested);
  page = await visit(desk);
  const { window } = await until("the window is there", () => look(desk));

  await xdotool("search", "--onlyvisible", "--class", "weston", "windowfocus");
  await xdotool("mousemove", window.x + 300, window.y + 250);
  await logged(page, `{"pointer":[300.0,250.0]}`);
  await page.waitForFunction(() => $("where").textContent === "300, 250" && !$("pointer").hidden);
  await xdotool("mousedown", 1);
  await logged(page, `{"button":"left","pressed":true}`);
  await page.waitForSelector("#pointer.pressed");
  await xdotool("mouseup", 1);
  await page.waitForSelector("#pointer:not(.pressed)");
  await xdotool("click", 5);
  await logged(page, `{"scroll":[0,`);
});

test("keys pressed in the window are in the page, with what they mean", options, async () => {
  await page.waitForSelector("#window.focus");
  await xdotool("key", "h", "shift+i", "Return");
  for (const [key, text] of [["h", "h"], ["I", "I"], ["Return", "\\u000d"]]) {
    await page.waitForFunction(([key, text]) => [...document.querySelectorAll("#log li")].some(({ textContent: item }) =>
      item.startsWith(`{"key":"${key}",`) && item.endsWith(`"text":"${text}","pressed":true}`)), [key, text]);
  }
  await page.locator("kbd", { hasText: /^h$/ }).waitFor();
  await page.waitForFunction(() => !document.querySelector("kbd.pressed"));
});

test("dragging the corner resizes the window, and the page follows", options, async () => {
  const { window } = await look(desk);
  const corner = [window.x + window.width - 8, window.y + window.height - 8];
  const wanted = { ...window, width: 540, height: 580 };
  await xdotool("mousemove", ...corner, "mousedown", 1);
  await logged(page, `{"pointer":null}`);
  await xdotool("mousemove", corner[0] + wanted.width - window.width, corner[1] + wanted.height - window.height);
  await page.waitForFunction(({ width, height }) => size[0] === width && size[1] === height, wanted);
  await xdotool("mouseup", 1);
  await until("the window has that size", async () => JSON.stringify((await look(desk)).window) === JSON.stringify(wanted));
});

test("a picture is taken", { ...options, skip: !process.env.SCREENSHOT }, async () => {
  const wide = 960, high = 790, margin = 36;
  await page.setViewportSize({ width: wide, height: high });
  await page.reload();
  await page.waitForSelector("body:not(.gone)");
  await draw(page, "blue", [[0.32, 0.84], [0.32, 0.46], [0.5, 0.14], [0.68, 0.46], [0.68, 0.84], [0.32, 0.84]]);
  await draw(page, "red", [[0.42, 0.84], [0.42, 0.56], [0.51, 0.56], [0.51, 0.84]]);
  await draw(page, "amber", [[0.57, 0.54], [0.63, 0.54], [0.63, 0.66], [0.57, 0.66], [0.57, 0.54]]);
  await draw(page, "green", [[0.06, 0.85], [0.94, 0.85]]);
  await page.locator("#text").fill("Is anybody home?");
  await page.locator(".swatch[title=ink]").click();
  const [point] = await places(page, [[0.1, 0.85]]);
  await until("the window shows it", async () => (await look(desk, { points: [point] })).colours[0] === GREEN);
  const { window } = await look(desk);
  await xdotool("key", "h", "e", "l", "l", "o");
  await page.locator("kbd", { hasText: /^o$/ }).waitFor();
  await xdotool("mousemove", window.x + 390, window.y + 205, "mousedown", 1);
  await page.waitForSelector("#pointer.pressed");
  await page.evaluate(() => Promise.all(document.getAnimations().map(animation => animation.finished)));
  const shots = { page: `data:image/png;base64,${(await page.screenshot()).toString("base64")}`, screen: await screenshot(desk) };
  await xdotool("mouseup", 1);
  await lens.setViewportSize({ width: wide + window.width + 3 * margin, height: high + 2 * margin });
  await lens.setContent(`<style>
    body { margin: 0; background: #${BACKGROUND}; }
    .page, .window { position: absolute; border-radius: 14px; box-shadow: 0 12px 40px #0005; overflow: hidden; }
    .page { left: ${margin}px; top: ${margin}px; }
    .window { right: ${margin}px; top: ${margin + (high - window.height) / 2}px; width: ${window.width}px; height: ${window.height}px; }
    .window img { position: absolute; left: ${-window.x}px; top: ${-window.y}px; }
    </style><img class="page" src="${shots.page}"><div class="window"><img src="${shots.screen}"></div>`);
  await lens.evaluate(() => Promise.all([...document.images].map(image => image.decode())));
  await lens.screenshot({ path: process.env.SCREENSHOT });
});

test("the close button ends the program cleanly", options, async () => {
  const { window } = await look(desk);
  await xdotool("mousemove", window.x + window.width - 40, window.y + 38, "click", 1);
  assert.deepEqual(await desk.child.ended, [0, null], desk.child.said);
  await page.waitForSelector("body.gone");
});

test("SIGINT ends the program cleanly too", options, async () => {
  const other = await open(nested);
  other.child.kill("SIGINT");
  assert.deepEqual(await other.child.ended, [0, null], other.child.said);
});
