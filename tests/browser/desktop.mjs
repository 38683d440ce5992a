// A desktop through the bridge: its page with noVNC, over plain HTTP and by TLS, and a recorded session played back.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';

import { ALL_BUT_COLOURS, judge, open, run, until } from './shared.mjs';

const { PORT, TYPED, RECORDING, PICTURES } = process.env;

/** How many colours the screen has, and how much of it the terminal's own, which is navy. */
const look = (page) => page.evaluate(() => {
  const canvas = document.querySelector('#screen canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const colour = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
    colours.set(colour, (colours.get(colour) ?? 0) + 1);
  }
  return { width: canvas.width, colours: colours.size, navy: (colours.get(0x80) ?? 0) / (data.length / 4) };
});

const connected = (page) => page.waitForFunction(() => document.getElementById('state').textContent === 'Connected');

/** Keeps what is seen, for whoever wants to look. */
const picture = (page, name) => PICTURES && page.screenshot({ path: `${PICTURES}/${name}.png` });

await run(async (browser) => {
  const plain = await open(browser);
  await plain.goto(`http://127.0.0.1:${PORT}/`);
  await connected(plain);
  assert.equal(await plain.title(), 'A real desktop');
  await until('the screen', async () => (await look(plain)).navy > 0);
  await plain.mouse.move(300, 300);
  await plain.keyboard.type('hello from the browser');
  await plain.keyboard.press('Enter');
  await until('what was typed', () => existsSync(TYPED));
  assert.equal(readFileSync(TYPED, 'utf8'), 'hello from the browser');
  await judge(plain, 'the desktop', ALL_BUT_COLOURS);
  await picture(plain, 'plain');
  const live = await look(plain);
  await plain.close();

  const secure = await open(browser, { ignoreHTTPSErrors: true });
  await secure.goto(`https://localhost:${PORT}/`);
  await connected(secure);
  await until('the screen by TLS', async () => (await look(secure)).navy > 0.1);
  await picture(secure, 'secure');

  // The bridge has written the end once it knows of the page's.
  const recording = await until('the recording', () => {
    const text = readFileSync(RECORDING, 'latin1');
    return text.endsWith("'EOF'];\n") && text;
  });
  const played = await open(browser);
  await played.route('**/websockify*', (route) => route.abort());
  await played.goto(`http://127.0.0.1:${PORT}/core/rfb.js`);
  await played.setContent('<div id="screen" style="height: 800px"></div>');
  await played.addScriptTag({ content: `${recording}\nwindow.frames_of = VNC_frame_data;` });
  const end = await played.evaluate(async () => {
    const { default: RFB } = await import('/core/rfb.js');
    const channel = { binaryType: 'arraybuffer', protocol: '', readyState: 'open', onopen: null, onmessage: null, onerror: null, onclose: null, send() {}, close() {} };
    const rfb = new RFB(document.getElementById('screen'), channel);
    let said = '';
    rfb.addEventListener('connect', () => { said += 'connect '; });
    rfb.addEventListener('disconnect', () => { said += 'disconnect '; });
    for (const frame of window.frames_of) {
      if (frame === 'EOF') return said + frame;
      if (frame[0] !== '{') continue;
      const data = Uint8Array.from(frame.slice(frame.indexOf('{', 1) + 1), (c) => c.charCodeAt(0));
      channel.onmessage({ data: data.buffer });
      // What is drawn is drawn later.
      await new Promise((resolve) => setTimeout(resolve));
    }
    return said;
  });
  assert.equal(end, 'connect EOF');
  const again = await until('the screen of the recording', async () => {
    const seen = await look(played);
    return seen.width === live.width && Math.abs(seen.navy - live.navy) < 0.02 && seen;
  });
  assert.ok(again.colours > 1);
  await picture(played, 'played');
});
