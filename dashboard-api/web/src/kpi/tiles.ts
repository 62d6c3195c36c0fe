/**
 * The ten tiles: which column of which view each shows, and what stands beside the number.
 *
 * All views here have one row, but for `sales_by_day`, which gives two tiles their course over the days.
 */
import { type Format, ratioOf, type Unit } from '../format/format';
import type { Messages } from '../messages';
import type { Row } from '../wire/schema';

export const SALES_VIEW = 'sales_by_day';

export interface Comparison {
  readonly text: string;
  /** Part of the reference reached, 0 and up; draws the bar under the number. */
  readonly ratio: number | null;
  /** Set when a person should look: shown with an icon and in colour. */
  readonly attention?: boolean;
}

export interface TileSpec {
  readonly id: keyof Messages['kpi'];
  readonly view: string;
  readonly column: string;
  readonly unit: Unit;
  /** What the number counts, when its format does not say it. */
  readonly unitName?: keyof Messages['unit'];
  /** The line under the number. */
  readonly compare: (row: Row, m: Messages, f: Format) => Comparison | null;
  /** Column of `sales_by_day` for the sparkline; without it, the values seen since the page was opened. */
  readonly daily?: string;
}

function versusYesterday(column: string, unit: Unit) {
  return (row: Row, m: Messages, f: Format): Comparison | null => {
    const base = `${column}_yesterday`;
    if (row[base] === null || row[base] === undefined) return null;
    const ratio = ratioOf(row, column, base);
    const yesterday = f.number(row[base], unit);
    return {
      ratio,
      text: ratio === null ? m.yesterday(yesterday) : m.ofYesterday(f.ratio(ratio), yesterday),
    };
  };
}

/** A line of text about one more column; nothing if the column is NULL. */
function about(column: string, unit: Unit, text: (m: Messages, value: string, count: number) => string) {
  return (row: Row, m: Messages, f: Format): Comparison | null =>
    row[column] === null || row[column] === undefined
      ? null
      : { text: text(m, f.number(row[column], unit), Number(row[column])), ratio: null };
}

/** The same, with a call for attention while the tile's own number is above zero. */
function attentionWhen(column: string, inner: TileSpec['compare']): TileSpec['compare'] {
  return (row, m, f) => {
    const comparison = inner(row, m, f);
    return comparison && { ...comparison, attention: Number(row[column] ?? 0) > 0 };
  };
}

export const TILES: readonly TileSpec[] = [
  {
    id: 'revenueToday',
    view: 'kpi_sales_today',
    column: 'revenue_net',
    unit: 'money',
    unitName: 'net',
    compare: versusYesterday('revenue_net', 'money'),
    daily: 'revenue_net',
  },
  {
    id: 'unitsToday',
    view: 'kpi_sales_today',
    column: 'units_sold',
    unit: 'quantity',
    compare: versusYesterday('units_sold', 'quantity'),
    daily: 'units_sold',
  },
  {
    id: 'ordersToday',
    view: 'kpi_order_intake_today',
    column: 'orders',
    unit: 'count',
    compare: versusYesterday('orders', 'count'),
  },
  {
    id: 'openOrders',
    view: 'kpi_open_orders',
    column: 'orders',
    unit: 'count',
    compare: attentionWhen(
      'older_than_14_days',
      about('older_than_14_days', 'count', (m, value) => m.olderThan14(value)),
    ),
  },
  {
    id: 'openOrderValue',
    view: 'kpi_open_orders',
    column: 'total_amount',
    unit: 'money',
    compare: about('open_units', 'quantity', (m, value) => m.unitsOpen(value)),
  },
  {
    id: 'lateProduction',
    view: 'kpi_production',
    column: 'late_orders',
    unit: 'count',
    compare: attentionWhen(
      'late_orders',
      about('open_orders', 'count', (m, value) => m.ofOpen(value)),
    ),
  },
  {
    id: 'completion',
    view: 'kpi_production',
    column: 'completion_pct',
    unit: 'percent',
    compare: (row, m, f) => ({
      text: m.inOpenProduction(f.number(row.open_orders, 'count')),
      ratio: row.completion_pct === null ? null : Number(row.completion_pct) / 100,
    }),
  },
  {
    id: 'stock',
    view: 'kpi_stock',
    column: 'quantity',
    unit: 'quantity',
    unitName: 'units',
    compare: about('items_in_stock', 'count', (m, value) => m.itemsInStock(value)),
  },
  {
    id: 'outOfStock',
    view: 'kpi_stock',
    column: 'items_out_of_stock',
    unit: 'count',
    compare: about('items_in_stock', 'count', (m, value) => m.itemsInStock(value)),
  },
  {
    id: 'overdue',
    view: 'kpi_receivables',
    column: 'overdue_amount',
    unit: 'money',
    compare: attentionWhen('overdue_amount', (row, m, f) => ({
      text: [
        m.invoicesOverdue(f.number(row.overdue_invoices, 'count'), Number(row.overdue_invoices)),
        m.ofReceivables(f.number(row.open_amount, 'money')),
      ].join(', '),
      ratio: null,
    })),
  },
];

/** Every view the page subscribes to. */
export const VIEWS: readonly string[] = [...new Set([...TILES.map((tile) => tile.view), SALES_VIEW])];
