/** From the rows of `sales_by_day` to the columns that the chart, its table and the sparklines draw. */
import { approximate } from '../format/format';
import type { Row } from '../wire/schema';
import type { ViewState } from '../wire/view';

/** Days shown, counted back from the newest one. */
export const CHART_DAYS = 30;
const DAY_MS = 86_400_000;
const ISO_DATE = /^\d{4}-\d\d-\d\d$/;

export interface DaySeries {
  /** "2025-10-14", one for each calendar day, also those without a row. */
  readonly days: readonly string[];
  /** The day's row, or null: a gap. */
  readonly rows: readonly (Row | null)[];
}

/** The last days up to the newest row; a day without a row is a gap, not a zero. */
export function dailySeries(view: ViewState | undefined, days: number = CHART_DAYS): DaySeries {
  const byDay = new Map<string, Row>();
  for (const row of view?.rows.values() ?? []) {
    const day = row.record_date;
    if (typeof day === 'string' && ISO_DATE.test(day)) byDay.set(day, row);
  }
  if (byDay.size === 0) return { days: [], rows: [] };
  let newest = '';
  let oldest = '9999-12-31';
  for (const day of byDay.keys()) {
    if (day > newest) newest = day;
    if (day < oldest) oldest = day;
  }
  const end = Date.parse(newest);
  const start = Math.max(Date.parse(oldest), end - (days - 1) * DAY_MS);
  const series: string[] = [];
  for (let at = start; at <= end; at += DAY_MS) series.push(new Date(at).toISOString().slice(0, 10));
  return { days: series, rows: series.map((day) => byDay.get(day) ?? null) };
}

/** A column as numbers for drawing; null is a gap. */
export function drawn(series: DaySeries, column: string): (number | null)[] {
  return series.rows.map((row) => (row ? approximate(row[column]) : null));
}

/** The exact sum of decimal strings, as a decimal string. */
export function exactSum(series: DaySeries, column: string): `${number}` {
  const texts = series.rows
    .map((row) => String(row?.[column] ?? '0'))
    .filter((text) => /^-?\d+(\.\d+)?$/.test(text));
  const scale = Math.max(0, ...texts.map((text) => text.split('.')[1]?.length ?? 0));
  const total = texts.reduce((sum, text) => {
    const [whole = '0', fraction = ''] = text.split('.');
    return sum + BigInt(whole + fraction.padEnd(scale, '0'));
  }, 0n);
  const digits = (total < 0n ? -total : total).toString().padStart(scale + 1, '0');
  const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
  return `${total < 0n ? '-' : ''}${text}` as `${number}`;
}
