// Drives the explorer in headless Chromium: node explorer.mjs PAGE FOLDER CHROMIUM. Every check that fails ends it; what was
// seen is written to FOLDER. `playwright-core` is read from the folder that it runs in.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "here.js"))("playwright-core");
const [page_file, out, executablePath] = process.argv.slice(2);
const url = "file://" + resolve(page_file);

// Debian's list: nothing that asks anything of a network.
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
const errors = [];

async function open(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, offline: true, acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => /^(file|data|blob):/.test(request.url()) || options.offline === false || errors.push(`asked for ${request.url()}`));
  await page.goto(address);
  return page;
}

const text = (page, selector) => page.locator(selector).innerText();

async function download(page, button) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  const path = join(out, file.suggestedFilename());
  await file.saveAs(path);
  return path;
}

const page = await open(url);

// First paint under a second.
const paint = await page.evaluate(async () => {
  const find = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  for (let i = 0; i < 100 && find() === undefined; i++) await new Promise((done) => setTimeout(done, 20));
  return find();
});
assert(paint < 1000, `first paint after ${paint} ms`);

// The pure functions of the script.
const pure = await page.evaluate(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { texts, about, map, changes } = data;
  const at = ltm.changed([1, 2, 3, 4], 1, { kind: "scale", factor: 0.5 }, { dim: 2, prior_mean: [0, 0, 1, 2] }, []);
  const back = ltm.unproject(map, ltm.project(map, texts[0].mu));
  return {
    difference: ltm.difference("a b c d", "a x c d e").map(({ word, same }) => (same ? word : `[${word}]`)).join(" "),
    equal: ltm.difference("a b", "a b").every(({ same }) => same),
    hash: ltm.formatHash({ ...ltm.parseHash("#text=1&step=3&latent=all&change=scale-0.5&pair=x&evil=1"), share: 0 }),
    nothing: JSON.stringify(ltm.parseHash("#%%%&=&text=-1")),
    at,
    all: ltm.changed([1, 2], null, { kind: "prior" }, { dim: 1, prior_mean: [7, 8] }, []),
    swap: ltm.changed([1, 2], 0, { kind: "swap", with: 0 }, { dim: 1 }, [{ mu: [5, 6] }]),
    nearest: ltm.nearest([0, 2, 5], 3),
    onPlane: ltm.project(map, back).map((x, i) => Math.abs(x - ltm.project(map, texts[0].mu)[i])),
    file: Array.from(ltm.safetensors({ a: { shape: [2], data: [1, -2] } })),
    carries: ltm.carries([{ fact: "x", stories: 100, chance: 0.1, accuracy: [0.9, 0.12] }], 0).length + 10 * ltm.carries([{ fact: "x", stories: 100, chance: 0.1, accuracy: [0.9, 0.12] }], 1).length,
    width: about.dim * about.n_layers * about.latents_per_layer === texts[0].mu.length,
    complete: changes.every((list) => list.length === (about.n_layers * about.latents_per_layer + 1) * (4 + texts.length - 1)),
  };
});
assert.equal(pure.difference, "a [x] c d [e]");
assert(pure.equal && pure.width && pure.complete);
assert.equal(pure.hash, "#text=1&step=3&latent=all&change=scale-0.5");
assert.equal(pure.nothing, JSON.stringify({ text: 0, step: null, latent: null, change: null, pair: 0, share: 0 }));
assert.deepEqual([pure.at, pure.all, pure.swap, pure.nearest, pure.carries], [[1, 2, 2, 3], [7, 8], [5, 2], 1, 1]);
// The axes are orthogonal and of length 1, in single precision.
assert(pure.onPlane.every((off) => off < 1e-3), String(pure.onPlane));
const header = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
const size = Number(Buffer.from(pure.file.slice(0, 8)).readBigUInt64LE());
assert(size % 8 === 0 && Buffer.from(pure.file.slice(8, 8 + size)).toString().trim() === header);
assert.deepEqual([0, 4].map((i) => Buffer.from(pure.file.slice(8 + size)).readFloatLE(i)), [1, -2]);

// The fit: scrub to its start and back.
const [end, last] = [await text(page, "#step"), await text(page, "#at-step")];
await page.locator("#scrub").fill("0");
assert.match(await text(page, "#step"), /^step 0 of/);
assert.match(page.url(), /step=0/);
await page.keyboard.press("Escape");
await page.locator("body").click({ position: { x: 2, y: 2 } });
for (let i = 0; i < 64; i++) await page.keyboard.press("ArrowRight");
assert.deepEqual([await text(page, "#step"), await text(page, "#at-step")], [end, last]);

// Knock out each latent: the text of one at least changes.
const own = await text(page, "#changed");
let changed = 0;
const latents = page.locator("button.latent");
for (let j = 0; j < (await latents.count()); j++) {
  await latents.nth(j).click();
  await page.click('[data-change="prior"]');
  assert.match(await text(page, "#changed-note"), /knock out/);
  changed += (await text(page, "#changed")) !== own;
}
assert(changed > 0, "no knocked out latent changes the text");
await page.keyboard.press("Escape");
assert.equal(await text(page, "#changed"), own);
await page.keyboard.press("k");
const knocked = await text(page, "#changed");

// Candidates, the map, and the line between two texts.
await page.locator(".token").nth(3).hover();
assert.equal(await page.locator("#candidates .bar").count(), 10);
await page.locator("#map").scrollIntoViewIfNeeded();
const map = await page.locator("#map").boundingBox();
await page.mouse.move(map.x + map.width / 3, map.y + map.height / 2);
const here = await text(page, "#map-text");
assert((await page.locator("#neighbours li").count()) === 4 && !here.startsWith("Point"));
const between = await text(page, "#between");
await page.locator("#share").fill("8");
assert.notEqual(await text(page, "#between"), between);
await page.locator("#share").fill("0");

// What the address holds opens again.
assert.match(page.url(), /change=prior/);
const again = await open(page.url());
assert.equal(await text(again, "#changed"), knocked);

// Exports, and the exported page with the network off.
const html = await download(page, "#save-html");
const png = await readFile(await download(page, "#save-png"));
assert(png.subarray(1, 4).toString() === "PNG" && png.length > 10_000);
const tensors = await readFile(await download(page, "#save-safetensors"));
const parsed = JSON.parse(tensors.subarray(8, 8 + Number(tensors.readBigUInt64LE())));
assert.deepEqual(Object.keys(parsed), ["mu", "log_var"]);
const exported = await open("file://" + resolve(html));
assert.equal(await text(exported, "#changed"), knocked);
assert.equal(await exported.locator("#texts button").count(), await page.locator("#texts button").count());

// With a server: a text of one's own, by the contract of the page.
const source = (await readFile(page_file, "utf8")).replace('<html lang="en"', '<html lang="en" data-live="/v1/explorations"');
const known = await page.evaluate(() => JSON.parse(document.getElementById("data").textContent).texts[1]);
const asked = [];
const server = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  const json = (status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  if (request.method === "GET") return response.writeHead(200, { "content-type": "text/html" }).end(source);
  const question = JSON.parse(body);
  asked.push([request.url, question]);
  if (question.text === "zzz") return json(400, { error: { message: "the vocabulary lacks `zzz`" } });
  return json(200, request.url.endsWith("/decode") ? { text: "a text of the server", nll: 1 } : { ...known, text: question.text });
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const serving = await open(`http://127.0.0.1:${server.address().port}/`, { offline: false });
const count = await serving.locator("#texts button").count();
await serving.locator("#own-text").fill("tom went home .");
await serving.click("#fit button");
await serving.locator("#texts button").nth(count).waitFor();
assert.match(await text(serving, "#texts"), /tom went home \./);
await serving.waitForFunction(() => document.getElementById("scrub").value === document.getElementById("scrub").max);
await serving.locator("button.latent").first().click();
await serving.waitForFunction(() => document.getElementById("changed").innerText.trim() === "a text of the server");
const [path, question] = asked.at(-1);
assert(path === "/v1/explorations/decode" && question.z.length === known.mu.length && question.text === "tom went home .");
assert.deepEqual(errors, []);
await serving.locator("#own-text").fill("zzz");
await serving.click("#fit button");
await serving.waitForFunction(() => document.getElementById("message").innerText.includes("lacks"));
// The browser itself reports the status 400.
assert(errors.length === 1 && errors[0].includes("400"), String(errors));
errors.length = 0;
server.close();

// Screenshots: wide, narrow, dark. Nothing is cut off at 390 pixels.
await page.evaluate(() => scrollTo(0, 0));
await page.screenshot({ path: join(out, "explorer-1280.png"), fullPage: true });
const narrow = await open(page.url(), { viewport: { width: 390, height: 844 }, hasTouch: true });
assert((await narrow.evaluate(() => document.documentElement.scrollWidth)) <= 390, "the page is wider than 390 pixels");
await narrow.screenshot({ path: join(out, "explorer-390.png"), fullPage: true });
const dark = await open(page.url(), { colorScheme: "dark" });
await dark.screenshot({ path: join(out, "explorer-dark.png"), fullPage: true });
assert.deepEqual(errors, []);
await writeFile(join(out, "seen.json"), JSON.stringify({ first_paint_ms: paint, own, knocked, here }, null, 2));
console.log(`explorer: first paint after ${paint.toFixed(0)} ms, ${changed} of ${await latents.count()} latents change the text when knocked out`);
await browser.close();
