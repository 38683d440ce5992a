// For everybody: by keyboard alone, on a phone, in the dark, with any eyes, and read aloud.

import assert from 'node:assert/strict';
import { ALL_BUT_COLOURS, COLOURS, column, DASHBOARD, enter, fits, go, judge, open, PHONE, run, until } from './shared.mjs';

/** Machado, Oliveira and Fernandes (2009), full severity, for linear RGB. */
const EYES = {
  all: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};

/** Colours as light, as those eyes see it, and as distances are judged (CIE L*a*b*). */
const linear = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
const see = (matrix, rgb) => matrix.map((line) => Math.min(1, Math.max(0, line.reduce((sum, factor, index) => sum + factor * rgb[index], 0))));

const focus = (page) => page.evaluate(() => document.activeElement.innerText || document.activeElement.getAttribute('aria-label'));

await run(async (browser) => {
  const door = await open(browser);
  await door.goto(DASHBOARD);
  await judge(door, 'the door');
  await door.context().close();
  const page = await enter(browser);
  await keyboard(page);
  await everywhere(page, 'light');
  await colours(page, 'light');
  const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), light);
  // The same page in other colours, and then in another window.
  await everywhere(page, 'dark', COLOURS);
  await colours(page, 'dark');
  await page.context().close();
  const phone = await enter(browser, '#/fleet', PHONE);
  await everywhere(phone, 'a phone', ALL_BUT_COLOURS);
});

async function keyboard(page) {
  await until('rows', async () => (await column(page, 'tunnel')).length > 3);
  const names = await column(page, 'tunnel');
  await page.keyboard.press('Tab');
  assert.equal(await focus(page), 'Skip to the content');
  // One row is a stop; arrows choose which, and live updates leave it alone.
  await page.keyboard.press('j');
  assert.equal(await focus(page), names[0]);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('j');
  assert.equal(await focus(page), names[2]);
  await page.keyboard.press('k');
  const said = await page.textContent('#foot');
  await until('an update', async () => (await page.textContent('#foot')) !== said);
  assert.equal(await focus(page), names[1]);
  assert.equal(await page.locator('tbody a.open[tabindex="0"]').count(), 1);
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(ring, 'solid');
  await page.keyboard.press('Enter');
  await until('the client', async () => (await page.innerText('h1')) === names[1]);
  await until('its heading is where a reader goes on', async () => (await focus(page)) === names[1]);
  await page.keyboard.press('Escape');
  await until('the list', async () => (await column(page, 'tunnel')).length > 3);
  await page.keyboard.press('/');
  assert.equal(await focus(page), 'Search clients');
  // In a field, letters are letters.
  await page.keyboard.type('2?pj');
  assert.equal(await page.inputValue('.search'), '2?pj');
  await page.keyboard.press('Escape');
  for (const [key, heading] of [['2', 'Tunnels'], ['3', 'Events'], ['4', 'Keys'], ['1', 'Fleet']]) {
    await page.keyboard.press(key);
    await until(heading, async () => (await page.textContent('h1')) === heading);
  }
  await page.keyboard.press('?');
  const help = page.getByRole('dialog');
  assert.match(await help.innerText(), /Next page/);
  const touching = await help.locator('.shortcuts div').evaluateAll((rows) => rows
    .filter((row) => row.querySelector('kbd').getBoundingClientRect().right >= row.querySelector('dd').getBoundingClientRect().left)
    .map((row) => row.textContent));
  assert.deepEqual(touching, [], 'no key touches what it does');
  await page.getByLabel('Single keys').uncheck();
  await page.keyboard.press('Escape');
  await page.keyboard.press('2');
  assert.equal(await page.textContent('h1'), 'Fleet');
  await page.getByRole('button', { name: 'Keyboard shortcuts' }).click();
  await page.getByLabel('Single keys').check();
  await page.keyboard.press('Escape');
  // Order and pages, without a mouse.
  await page.locator('th[data-column=round_trip] button').focus();
  await page.keyboard.press('Enter');
  await until('the slowest first', async () => (await page.getAttribute('th[data-column=round_trip]', 'aria-sort')) === 'descending');
}

/** Axe has no complaint, and nothing is wider than the window. */
async function everywhere(page, where, rules = {}) {
  for (const [hash, ready] of [['#/fleet', 'tbody tr'], ['#/tunnels', 'tbody tr'], ['#/events', 'tbody tr'], ['#/keys', 'tbody tr']]) {
    await go(page, hash);
    await page.waitForSelector(`main ${ready}`);
    await judge(page, `${hash} in ${where}`, rules);
    await fits(page, `${hash} on ${where}`);
    const open = page.locator('tbody a.open').first();
    if (!(await open.count())) continue;
    await open.click();
    await page.waitForSelector('.facts dd:not(:empty)');
    await judge(page, `a detail of ${hash} in ${where}`, rules);
    await fits(page, `a detail of ${hash} on ${where}`);
  }
  await page.locator('#help').click();
  await page.getByRole('dialog').waitFor();
  await judge(page, `the help in ${where}`, rules);
  await page.keyboard.press('Escape');
}

/** The fills of the four kinds of health differ for eyes without red, green or blue cones, too. */
async function colours(page, where) {
  const names = ['--alive-fill', '--late-fill', '--dead-fill', '--away-fill'];
  const fills = await page.evaluate((list) => list.map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()), names);
  for (const [eyes, matrix] of Object.entries(EYES)) {
    const seen = fills.map((fill) => lab(see(matrix, linear(fill))));
    for (let a = 0; a < seen.length; a += 1) {
      for (let b = 0; b < a; b += 1) {
        const distance = Math.hypot(...seen[a].map((value, index) => value - seen[b][index]));
        assert.ok(distance > 12, `${names[a]} and ${names[b]} are ${distance.toFixed(1)} apart for ${eyes} in ${where}`);
      }
    }
  }
}

function lab([r, g, b]) {
  const xyz = [(0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505, 0.2126 * r + 0.7152 * g + 0.0722 * b, (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089];
  const [x, y, z] = xyz.map((value) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}
