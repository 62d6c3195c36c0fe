/** Revenue and units per day: the panel with its heading, the switch to the table, and the states without data. */
import { ChartColumn, Table2 } from 'lucide-react';
import { useMemo, useState } from 'react';
import { approximate } from '../format/format';
import { SALES_VIEW } from '../kpi/tiles';
import { useBoard, useBoardAt } from '../live/context';
import { freshness } from '../live/freshness';
import { useTexts } from '../messages';
import { StaleBadge } from '../parts/StaleBadge';
import { DayPlot } from './DayPlot';
import styles from './SalesChart.module.css';
import { SalesTable } from './SalesTable';
import { type DaySeries, dailySeries, exactSum } from './series';

export function SalesChart() {
  const { m, f } = useTexts();
  const view = useBoard((board) => board.views[SALES_VIEW]);
  const old = useBoardAt(
    (board, now) => board.connection.kind !== 'live' || freshness(board, now) === 'stale',
  );
  const [table, setTable] = useState(false);
  const series = useMemo(() => dailySeries(view), [view]);
  const first = series.days[0];
  const last = series.days.at(-1);

  return (
    <section className={styles.panel} aria-labelledby="chart-title">
      <div className={styles.head}>
        <h2 id="chart-title" className={styles.title}>
          {m.chartTitle}
        </h2>
        <span className={styles.range}>
          {first && last && m.chartRange(f.dayShort(first), f.dayShort(last))}
        </span>
        <StaleBadge />
        <fieldset className={styles.switch}>
          <legend className={styles.hidden}>{m.chartOrTable}</legend>
          <button type="button" aria-pressed={!table} onClick={() => setTable(false)}>
            <ChartColumn aria-hidden="true" size={16} />
            {m.showChart}
          </button>
          <button type="button" aria-pressed={table} onClick={() => setTable(true)}>
            <Table2 aria-hidden="true" size={16} />
            {m.showTable}
          </button>
        </fieldset>
      </div>
      <div className={old && view ? styles.bodyOld : styles.body}>
        {!view || series.days.length === 0 ? (
          <p className={styles.notice}>{view ? m.chartEmpty : m.loading}</p>
        ) : table ? (
          <SalesTable series={series} />
        ) : (
          <>
            <DayPlot series={series} />
            <ChartSummary series={series} />
          </>
        )}
      </div>
    </section>
  );
}

/** What the picture shows, in a sentence, for those who do not see it. */
function ChartSummary({ series }: { series: DaySeries }) {
  const { m, f } = useTexts();
  const money = (index: number) => f.number(series.rows[index]?.revenue_net, 'money');
  let best = 0;
  series.rows.forEach((row, index) => {
    if ((approximate(row?.revenue_net) ?? -1) > (approximate(series.rows[best]?.revenue_net) ?? -1))
      best = index;
  });
  const lastIndex = series.days.length - 1;
  const day = (index: number) => f.day(series.days[index] ?? '');
  return (
    <p className={styles.hidden}>
      {m.chartSummary({
        days: series.days.length,
        from: day(0),
        to: day(lastIndex),
        total: f.number(exactSum(series, 'revenue_net'), 'money'),
        best: money(best),
        bestDay: day(best),
        last: money(lastIndex),
        lastDay: day(lastIndex),
      })}
    </p>
  );
}
