/**
 * Numbers, money and times as people of a language write them.
 *
 * Decimals arrive as strings and go into `Intl.NumberFormat` as strings, which keeps every digit.
 */
import type { Language } from '../messages';
import type { Cell, Row } from '../wire/schema';

export const CURRENCY = 'EUR';
/** From here on a tile shows "1.23 M" instead of all digits. */
const COMPACT_FROM = 1_000_000;

const DECIMAL = /^-?\d+(\.\d+)?$/;
/** An exact number as text, or null if the cell holds none. */
export function decimal(cell: Cell | undefined): `${number}` | null {
  if (typeof cell === 'number' && Number.isFinite(cell)) return `${cell}` as `${number}`;
  return typeof cell === 'string' && DECIMAL.test(cell) ? (cell as `${number}`) : null;
}

/** For lengths of bars and ratios only: money is never computed with it. */
export function approximate(cell: Cell | undefined): number | null {
  const text = decimal(cell);
  return text === null ? null : Number(text);
}

export type Unit = 'money' | 'money_exact' | 'count' | 'quantity' | 'percent';

export interface Format {
  readonly language: Language;
  number(value: Cell | undefined, unit: Unit): string;
  /** 0.62 → "62 %". */
  ratio(value: number): string;
  /** Business or wall time: day and time. */
  dateTime(ms: number): string;
  time(ms: number): string;
  clock(ms: number): string;
  /** A plain date "2025-10-14", which has no zone. */
  day(isoDate: string): string;
  dayShort(isoDate: string): string;
  /** "3 h 12 min": the two largest parts. */
  duration(ms: number): string;
  cell(cell: Cell | undefined): string;
}

export const NO_VALUE = '–';
const LOCALES: Record<Language, string> = { en: 'en-GB', de: 'de-DE' };

const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const DATE = /^\d{4}-\d\d-\d\d$/;

function durationParts(ms: number): [number, Intl.NumberFormatOptions['unit']][] {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days > 0) return [[days, 'day'], ...part(hours % 24, 'hour')];
  if (hours > 0) return [[hours, 'hour'], ...part(minutes % 60, 'minute')];
  if (minutes > 0) return [[minutes, 'minute']];
  return [[seconds, 'second']];
}

function part(value: number, unit: string): [number, string][] {
  return value > 0 ? [[value, unit]] : [];
}

export function formatFor(language: Language): Format {
  const locale = LOCALES[language];
  const money = new Intl.NumberFormat(locale, {
    style: 'currency',
    currency: CURRENCY,
    maximumFractionDigits: 0,
  });
  const moneyExact = new Intl.NumberFormat(locale, { style: 'currency', currency: CURRENCY });
  const moneyCompact = new Intl.NumberFormat(locale, {
    style: 'currency',
    currency: CURRENCY,
    notation: 'compact',
    minimumFractionDigits: 2,
    maximumFractionDigits: 2,
  });
  const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
  const fraction = new Intl.NumberFormat(locale, { maximumFractionDigits: 3 });
  const percent = new Intl.NumberFormat(locale, {
    style: 'percent',
    maximumFractionDigits: 1,
    minimumFractionDigits: 1,
  });
  const ratio = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 0 });
  const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' });
  const time = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
  const clock = new Intl.DateTimeFormat(locale, { timeStyle: 'medium' });
  const day = new Intl.DateTimeFormat(locale, {
    weekday: 'short',
    day: 'numeric',
    month: 'short',
    year: 'numeric',
    timeZone: 'UTC',
  });
  const dayShort = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short', timeZone: 'UTC' });

  const number = (value: Cell | undefined, unit: Unit): string => {
    const text = decimal(value);
    if (text === null) return NO_VALUE;
    if (unit === 'money') return (Math.abs(Number(text)) >= COMPACT_FROM ? moneyCompact : money).format(text);
    if (unit === 'money_exact') return moneyExact.format(text);
    if (unit === 'count') return whole.format(text);
    if (unit === 'quantity') return (Number.isInteger(Number(text)) ? whole : fraction).format(text);
    return percent.format(Number(text) / 100);
  };
  return {
    language,
    number,
    ratio: (value) => ratio.format(value),
    dateTime: (ms) => dateTime.format(ms),
    time: (ms) => time.format(ms),
    clock: (ms) => clock.format(ms),
    day: (isoDate) => day.format(Date.parse(isoDate)),
    dayShort: (isoDate) => dayShort.format(Date.parse(isoDate)),
    duration: (ms) =>
      durationParts(ms)
        .map(([value, unit]) =>
          new Intl.NumberFormat(locale, {
            style: 'unit',
            unit,
            unitDisplay: 'short',
          } as Intl.NumberFormatOptions).format(value),
        )
        .join(' '),
    cell: (cell) => {
      if (cell === null || cell === undefined) return NO_VALUE;
      if (typeof cell === 'string') {
        if (TIMESTAMP.test(cell)) return dateTime.format(Date.parse(cell));
        return DATE.test(cell) ? day.format(Date.parse(cell)) : cell;
      }
      if (typeof cell === 'number') return fraction.format(cell);
      return typeof cell === 'boolean' ? (cell ? '✓' : '✗') : JSON.stringify(cell);
    },
  };
}

/** Ratio of two cells, for "62 % of yesterday"; null if it would say nothing. */
export function ratioOf(row: Row, column: string, base: string): number | null {
  const value = approximate(row[column]);
  const reference = approximate(row[base]);
  return value === null || reference === null || reference <= 0 ? null : value / reference;
}
