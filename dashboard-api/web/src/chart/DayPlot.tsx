/**
 * The picture: bars for revenue, a line for units, on uPlot.
 *
 * The plot is built anew when size class, theme or language change; new data only goes through `setData`, so
 * that live changes do not flicker. Gaps stay gaps.
 */
import { useEffect, useMemo, useRef, useState } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Format } from '../format/format';
import { type Messages, useTexts } from '../messages';
import { token, useTheme } from '../theme/theme';
import styles from './DayPlot.module.css';
import { type DaySeries, drawn } from './series';

function columns(series: DaySeries): uPlot.AlignedData {
  return [
    series.days.map((day) => Date.parse(day) / 1_000),
    drawn(series, 'revenue_net'),
    drawn(series, 'units_sold'),
  ];
}

const isoDay = (seconds: number) => new Date(seconds * 1_000).toISOString().slice(0, 10);

function axis(stroke: string, grid: string | null, f: Format): uPlot.Axis {
  return {
    stroke,
    font: `12px ${token('font')}`,
    grid: grid ? { stroke: grid, width: 1 } : { show: false },
    ticks: { show: false },
    values: (_plot, splits) => splits.map((value) => f.number(value, 'count')),
  };
}

function optionsFor(
  width: number,
  height: number,
  m: Messages,
  f: Format,
  hover: (index: number | null) => void,
): uPlot.Options {
  const soft = token('text-soft');
  const line = token('line');
  const bars = token('series-1');
  const units = token('series-2');
  const barPaths = uPlot.paths.bars?.({ size: [0.68, 34], radius: 0.12 });
  return {
    width,
    height,
    padding: [12, 0, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), 'UTC'),
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 9 } },
    scales: {
      x: { time: true, range: (_plot, low, high) => [low - 43_200, high + 43_200] },
      money: { range: (_plot, _low, high) => [0, Math.max(1, high) * 1.08] },
      units: { range: (_plot, _low, high) => [0, Math.max(1, high) * 1.25] },
    },
    axes: [
      {
        ...axis(soft, null, f),
        space: 64,
        size: 30,
        values: (_plot, splits) => splits.map((at) => f.dayShort(isoDay(at))),
      },
      {
        ...axis(soft, line, f),
        scale: 'money',
        size: 64,
        values: (_plot, splits) => splits.map((value) => f.number(value, 'money')),
      },
      { ...axis(units, null, f), scale: 'units', side: 1, size: 52 },
    ],
    series: [
      {},
      {
        label: m.revenue,
        scale: 'money',
        stroke: bars,
        fill: bars,
        width: 0,
        points: { show: false },
        ...(barPaths ? { paths: barPaths } : {}),
      },
      {
        label: m.units,
        scale: 'units',
        stroke: units,
        width: 2.25,
        spanGaps: false,
        points: { show: true, size: 5, fill: units },
      },
    ],
    hooks: { setCursor: [(plot) => hover(plot.cursor.idx ?? null)] },
  };
}

export function DayPlot({ series }: { series: DaySeries }) {
  const { m, f } = useTexts();
  const theme = useTheme();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const data = useMemo(() => columns(series), [series]);
  const newest = useRef(data);
  newest.current = data;

  // The theme is no argument of the effect, but what `token` answers depends on it.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const made = new uPlot(
      optionsFor(element.clientWidth, element.clientHeight, m, f, setHovered),
      newest.current,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height: element.clientHeight });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [m, f, theme]);

  useEffect(() => plot.current?.setData(data), [data]);

  const index = hovered ?? series.days.length - 1;
  const day = series.days[index];
  const row = series.rows[index];
  return (
    <div className={styles.wrap}>
      <p className={styles.legend} aria-hidden="true">
        <strong className={styles.day}>{day ? f.day(day) : ''}</strong>
        <span className={styles.key}>
          <i className={styles.bar} />
          {m.revenue} <b>{row ? f.number(row.revenue_net, 'money_exact') : m.noSales}</b>
        </span>
        <span className={styles.key}>
          <i className={styles.line} />
          {m.units} <b>{row ? f.number(row.units_sold, 'quantity') : m.noSales}</b>
        </span>
      </p>
      <div ref={box} className={styles.plot} aria-hidden="true" data-testid="chart" />
    </div>
  );
}
