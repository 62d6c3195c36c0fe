/** One live number: value, unit, comparison, course, data time, and the way to its definition. */
import { CircleHelp, TrendingDown, TrendingUp, TriangleAlert } from 'lucide-react';
import { type CSSProperties, useState } from 'react';
import { dailySeries, drawn } from '../chart/series';
import { approximate, decimal, NO_VALUE } from '../format/format';
import { useBoard, useBoardAt } from '../live/context';
import { businessTimeMs, freshness } from '../live/freshness';
import { useTexts } from '../messages';
import { StaleBadge } from '../parts/StaleBadge';
import { firstRow, type ViewState } from '../wire/view';
import styles from './KpiTile.module.css';
import { Sparkline } from './Sparkline';
import { SALES_VIEW, type TileSpec } from './tiles';
import { WhyDialog } from './WhyDialog';

const SPARK_DAYS = 14;

export function KpiTile({ spec }: { spec: TileSpec }) {
  const { m, f } = useTexts();
  const [why, setWhy] = useState(false);
  const view = useBoard((board) => board.views[spec.view]);
  const absent = useBoard((board) => board.absent[spec.view]);
  const old = useBoardAt((board, now) => {
    const state = freshness(board, now);
    return board.connection.kind !== 'live' || state === 'stale';
  });
  const row = view ? firstRow(view.rows) : null;
  const comparison = row ? spec.compare(row, m, f) : null;
  const title = m.kpi[spec.id];
  const classes = [styles.tile, old && view ? styles.old : '', comparison?.attention ? styles.attention : ''];

  return (
    <li className={classes.filter(Boolean).join(' ')} data-testid={`tile-${spec.id}`}>
      <div className={styles.head}>
        <h3 className={styles.title}>
          {title}
          {spec.unitName && <span className={styles.unit}> {m.unit[spec.unitName]}</span>}
        </h3>
        <button
          type="button"
          className={styles.why}
          onClick={() => setWhy(true)}
          aria-label={m.whyOf(title)}
          title={m.why}
        >
          <CircleHelp aria-hidden="true" size={16} />
        </button>
      </div>
      {view && row ? (
        <Figure spec={spec} view={view} />
      ) : (
        <div className={styles.figure}>
          <p className={view || absent ? styles.notice : styles.skeleton}>
            {view
              ? view.emptyInputs.length > 0
                ? m.notInErp(view.emptyInputs.join(', '))
                : m.emptyKpi
              : noticeOf(absent, m)}
          </p>
        </div>
      )}
      <p className={comparison?.attention ? styles.compareAttention : styles.compare}>
        {comparison?.attention && <TriangleAlert aria-hidden="true" size={14} />}
        <span>{comparison?.text ?? '\u00a0'}</span>
      </p>
      <Course spec={spec} view={view} ratio={comparison?.ratio ?? null} />
      <p className={styles.foot}>
        <AsOf />
        <StaleBadge />
        {view && <Trend spec={spec} view={view} />}
      </p>
      {why && <WhyDialog spec={spec} onClose={() => setWhy(false)} />}
    </li>
  );
}

function noticeOf(absent: string | undefined, m: ReturnType<typeof useTexts>['m']): string {
  if (absent === 'unknown') return m.unknownView;
  if (absent === 'forbidden') return m.forbiddenView;
  return absent === 'unreadable' ? m.unreadableView : m.loading;
}

function Figure({ spec, view }: { spec: TileSpec; view: ViewState }) {
  const { m, f } = useTexts();
  const row = firstRow(view.rows);
  const text = f.number(row?.[spec.column], spec.unit);
  // The key renews the element, and with it the flash, whenever this number (not just its view) has changed.
  const flashKey = decimal(row?.[spec.column]) ?? 'none';
  return (
    <div className={styles.figure}>
      {view.changes > 0 && <span key={flashKey} className={styles.flash} aria-hidden="true" />}
      <p className={styles.value} style={{ '--chars': text.length } as CSSProperties} data-testid="value">
        {text === NO_VALUE ? <span title={m.noValue}>{NO_VALUE}</span> : text}
      </p>
    </div>
  );
}

/** Which way the number went with the last change of its view. */
function Trend({ spec, view }: { spec: TileSpec; view: ViewState }) {
  const { m } = useTexts();
  const before = approximate(view.samples.at(-2)?.row[spec.column]);
  const now = approximate(firstRow(view.rows)?.[spec.column]);
  const direction = before === null || now === null || before === now ? null : now > before ? 'up' : 'down';
  if (direction === null) return null;
  const Icon = direction === 'up' ? TrendingUp : TrendingDown;
  return (
    <Icon
      className={styles.trend}
      size={16}
      role="img"
      aria-label={direction === 'up' ? m.higher : m.lower}
    />
  );
}

function Course({
  spec,
  view,
  ratio,
}: {
  spec: TileSpec;
  view: ViewState | undefined;
  ratio: number | null;
}) {
  const { m, f } = useTexts();
  const sales = useBoard((board) => (spec.daily ? board.views[SALES_VIEW] : undefined));
  const values = spec.daily
    ? drawn(dailySeries(sales, SPARK_DAYS), spec.daily)
    : (view?.samples ?? []).map((sample) => approximate(sample.row[spec.column]));
  return (
    <div className={styles.course}>
      <div className={styles.track}>
        {ratio !== null && (
          <div className={styles.bar} style={{ width: `${Math.min(1, Math.max(0, ratio)) * 100}%` }} />
        )}
      </div>
      <Sparkline values={values} label={m.sparkline(f.number(values.length, 'count'))} />
    </div>
  );
}

/** The business time at which the engine stands: the view is complete up to there, changed or not. */
function AsOf() {
  const { m, f } = useTexts();
  const asOfMs = useBoard(businessTimeMs);
  return (
    <span>
      {m.asOf} {asOfMs === null ? NO_VALUE : f.time(asOfMs)}
    </span>
  );
}
