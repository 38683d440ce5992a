// What the tests of the dashboard stand on: a browser, a page that is logged in, and waits that say what they wait for.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(`${process.env.ADIT_NODE_MODULES}/`);
const { chromium } = require('playwright-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** No wait is longer. */
const PATIENCE = 20_000;

export const { DASHBOARD, PASSWORD } = process.env;
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** What all pages complained of. */
const complaints = [];

/** Runs `test` with a browser; it fails, too, when a page complained: of an error, or a breach of its security policy. */
export async function run(test) {
  // Its sandbox does not work for root, as whom containers run it.
  const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args });
  try {
    await test(browser);
  } catch (error) {
    // Often the reason.
    complaints.forEach((complaint) => console.error(complaint));
    throw error;
  } finally {
    await browser.close();
  }
  assert.deepEqual(complaints, []);
}

/** A page in a context of its own. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  // While somebody works on the pages: the files of a directory in the place of those in the program.
  const { ASSETS } = process.env;
  if (ASSETS) await context.route('**/assets/**', (route) => route.fulfill({ path: join(ASSETS, new URL(route.request().url()).pathname.slice(8)) }));
  context.on('weberror', (error) => complaints.push(String(error.error().stack)));
  context.on('console', (message) => message.text().includes('Content Security Policy') && complaints.push(message.text()));
  context.on('dialog', (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  return context.newPage();
}

/** A page that is logged in, at `hash`. */
export async function enter(browser, hash = '#/fleet', options = {}) {
  const page = await open(browser, options);
  // With the page's own form, once a context.
  await page.goto(DASHBOARD);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.waitForSelector('#nav');
  await go(page, hash);
  await live(page);
  return page;
}

export async function go(page, hash) {
  await page.evaluate((to) => { location.hash = to; }, hash);
}

/** Until the stream is there. */
export const live = (page) => page.waitForSelector('#live[data-state=live]');

/** Until `look` is true, or gives something. */
export async function until(what, look) {
  const end = Date.now() + PATIENCE;
  let [last, error] = [undefined, null];
  while (Date.now() < end) {
    try {
      [last, error] = [await look(), null];
      if (last) return last;
    } catch (thrown) {
      error = thrown;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not in time: ${what}; at last: ${error ?? JSON.stringify(last)}`);
}

/** What the cells of a column are about; rows that are not in the window have their text, too. */
export const column = (page, name) => page.$$eval(`tbody td[data-column=${name}]`, (cells) => cells.map((cell) => (cell.querySelector('.open, .cut') ?? cell).textContent.trim()));

/** The row whose link has that name. */
export const row = (page, name) => page.locator('tbody tr', { has: page.locator('a.open', { hasText: new RegExp(`^${name}$`) }) });

/** The page is no wider than its window. */
export async function fits(page, where) {
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window, `${where} is ${wide} px wide in a window of ${window}`);
}

/** The rule of axe that looks at colours, and takes longer than all others together. */
const CONTRAST = 'color-contrast';
export const COLOURS = { runOnly: [CONTRAST] };
export const ALL_BUT_COLOURS = { rules: { [CONTRAST]: { enabled: false } } };

/** What axe finds wrong, by all its rules or by these. */
export async function judge(page, where, rules = {}) {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(AXE);
  const found = await page.evaluate(async (options) => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'], ...options });
    return violations.map(({ id, nodes }) => ({ id, nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`) }));
  }, rules);
  assert.deepEqual(found, [], where);
}
