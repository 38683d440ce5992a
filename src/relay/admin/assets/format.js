// Numbers as people read them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'long' });

/** What stands for a number that there is not. */
export const NONE = '–';

const absent = (value) => value === null || value === undefined || Number.isNaN(value);

/** Most numbers are small, and those need no help: there are thousands on a page, each second. */
export const number = (value) => (absent(value) ? NONE : Number.isInteger(value) && value >= 0 && value < 1000 ? String(value) : whole.format(value));

/** How far the clock of the relay is ahead of ours: all its times are by its own. */
let ahead = 0;

/** The relay's time is `at` now. */
export function setClock(at) {
  ahead = at - Date.now();
}

/** The time at the relay. */
export const now = () => Date.now() + ahead;

/** How long ago that was. */
export const since = (at) => span(now() - at);

/** A rate: small ones with a digit behind the point. */
export function rate(value) {
  if (absent(value)) return NONE;
  return value > 0 && value < 99.95 ? one.format(value) : whole.format(value);
}

/** Milliseconds of a wait or a round trip. */
export function wait(ms) {
  if (absent(ms)) return NONE;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  return span(ms);
}

/** A length of time in its two greatest units. */
export function span(ms) {
  if (absent(ms)) return NONE;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (hours < 1) return minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  if (days < 1) return hours < 10 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return days < 10 ? `${days} d ${hours % 24} h` : `${whole.format(days)} d`;
}

export function bytes(count) {
  if (absent(count)) return NONE;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let [value, unit] = [count, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit > 0 && value < 99.95 ? one.format(value) : whole.format(value)} ${units[unit]}`;
}

/** The time of day, with the day when that is not today. */
export function time(at) {
  if (absent(at)) return NONE;
  const [date, current] = [new Date(at), now()];
  if (Math.abs(current - at) < 86_400_000 && date.getDate() === new Date(current).getDate()) {
    return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
  }
  return day.format(date);
}

export const date = (at) => (absent(at) ? NONE : full.format(new Date(at)));

/** How many of what: `1 client`, `2 clients`. */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`;

/** A word of the relay's, as `took_over`, for people. */
export const words = (text) => String(text).replaceAll('_', ' ');

export function title(text) {
  const value = words(text);
  return value.charAt(0).toUpperCase() + value.slice(1);
}
