/**
 * What an alert's impact is counted in.
 *
 * The event carries the number but not its unit. The impact is one of the row's columns, so the column's name tells:
 * a money-like name is money, any other is shown as a plain number beside that name. Without the row it is money,
 * as the event's contract says.
 */
import { decimal, type Format } from '../format/format';
import type { Alert } from '../wire/schema';

const MONEY = /(^|_)(amount|value|net|gross|revenue|price|cost|turnover|margin)(_|$)/;

export interface Impact {
  readonly short: string;
  readonly exact: string;
}

export function impactOf(alert: Alert, f: Format): Impact | null {
  const impact = decimal(alert.impact);
  if (impact === null) return null;
  const columns = Object.entries(alert.row ?? {}).filter(([, cell]) => {
    const text = decimal(cell);
    return text !== null && Number(text) === Number(impact);
  });
  const name = columns.some(([column]) => MONEY.test(column)) ? undefined : columns[0]?.[0];
  if (name === undefined) return { short: f.number(impact, 'money'), exact: f.number(impact, 'money_exact') };
  const text = `${f.number(impact, 'quantity')} ${name.replaceAll('_', ' ')}`;
  return { short: text, exact: text };
}
