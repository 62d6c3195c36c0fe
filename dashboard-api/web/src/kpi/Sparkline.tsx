/** A small line without axes: the shape of a number's course. Decoration; the number itself stands beside it. */
import styles from './Sparkline.module.css';

const WIDTH = 100;
const HEIGHT = 24;
const PADDING = 2;

export interface SparklineProps {
  /** Oldest first; null is a gap. */
  readonly values: readonly (number | null)[];
  readonly label: string;
}

export function Sparkline({ values, label }: SparklineProps) {
  const known = values.filter((value): value is number => value !== null);
  if (known.length < 2) return <div className={styles.empty} aria-hidden="true" />;
  const low = Math.min(...known);
  const span = Math.max(...known) - low;
  const x = (index: number) => (index / (values.length - 1)) * WIDTH;
  const y = (value: number) =>
    span === 0 ? HEIGHT / 2 : HEIGHT - PADDING - ((value - low) / span) * (HEIGHT - 2 * PADDING);
  let path = '';
  let pen = false;
  values.forEach((value, index) => {
    if (value === null) pen = false;
    else {
      path += `${pen ? 'L' : 'M'}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = true;
    }
  });
  return (
    <svg
      className={styles.spark}
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <path d={path} className={styles.line} vectorEffect="non-scaling-stroke" />
    </svg>
  );
}
