// Pictures of every view, for docs/dashboard.md.

import { mkdirSync } from 'node:fs';
import { column, DASHBOARD, enter, go, open, PHONE, run, until } from './shared.mjs';

const DIR = new URL('../../docs/dashboard/', import.meta.url).pathname;
const WINDOW = { viewport: { width: 1280, height: 860 } };

await run(async (browser) => {
  mkdirSync(DIR, { recursive: true });
  const door = await open(browser, WINDOW);
  await door.goto(DASHBOARD);
  const shoot = async (page, name) => {
    await page.mouse.move(0, 0);
    await page.screenshot({ path: `${DIR}${name}.png` });
  };
  await shoot(door, 'login');
  // The charts are gathered while the page is open.
  const light = await enter(browser, '#/fleet', WINDOW);
  const dark = await enter(browser, '#/fleet', { ...WINDOW, colorScheme: 'dark' });
  const phone = await enter(browser, '#/fleet', { ...PHONE, viewport: { width: 390, height: 780 }, deviceScaleFactor: 1.5 });
  await new Promise((done) => { setTimeout(done, Number(process.env.SECONDS) * 1_000); });
  for (const [page, name] of [[light, 'light'], [dark, 'dark'], [phone, 'phone']]) {
    await shoot(page, `fleet-${name}`);
    await go(page, '#/fleet?sort=missed&order=desc&health=alive');
    await until('clients', async () => (await column(page, 'tunnel')).length > 10);
    await page.locator('tbody a.open').first().click();
    await until('its hour', async () => (await page.locator('.spread tbody tr').count()) > 0 && (await column(page, 'kind')).length > 0);
    await shoot(page, `client-${name}`);
    await go(page, '#/tunnels?sort=requests&order=desc');
    await until('tunnels', async () => (await column(page, 'name'))[0] === 'site');
    await shoot(page, `tunnels-${name}`);
    await page.locator('tbody a.open').first().click();
    await until('its clients', async () => (await column(page, 'tunnel')).length > 0 && (await column(page, 'kind')).length > 0);
    await shoot(page, `tunnel-${name}`);
    await go(page, '#/events');
    await until('events', async () => (await column(page, 'kind')).length > 10);
    await shoot(page, `events-${name}`);
    await go(page, '#/keys');
    await until('keys', async () => (await column(page, 'name')).length > 0);
    await shoot(page, `keys-${name}`);
  }
  await go(light, '#/fleet?health=alive');
  await until('clients', async () => (await column(light, 'tunnel')).length > 10);
  await light.locator('tbody a.open').first().click();
  await light.getByRole('button', { name: 'Disconnect' }).click();
  await shoot(light, 'question-light');
});
