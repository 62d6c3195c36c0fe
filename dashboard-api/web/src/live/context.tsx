/** Hands the store to the widgets, and one clock that ticks for all of them. */
import { createContext, type ReactNode, useCallback, useContext, useSyncExternalStore } from 'react';
import type { Live } from './connection';
import type { Board, BoardStore } from './store';

interface BoardContext {
  readonly store: BoardStore;
  readonly live: Live;
}

const Context = createContext<BoardContext | null>(null);

export function BoardProvider({ store, live, children }: BoardContext & { children: ReactNode }) {
  return <Context value={{ store, live }}>{children}</Context>;
}

export function useBoardContext(): BoardContext {
  const context = useContext(Context);
  if (!context) throw new Error('a board widget outside its provider');
  return context;
}

/** A part of the board. `select` must return a value that keeps its identity while it does not change. */
export function useBoard<T>(select: (board: Board) => T): T {
  const { store } = useBoardContext();
  return useSyncExternalStore(store.subscribe, () => select(store.get()));
}

const TICK_MS = 1_000;
const tickListeners = new Set<() => void>();
let tickTimer: ReturnType<typeof setInterval> | undefined;
let tickMs = Date.now();

function subscribeTick(listener: () => void): () => void {
  tickListeners.add(listener);
  tickTimer ??= setInterval(() => {
    tickMs = Date.now();
    for (const each of tickListeners) each();
  }, TICK_MS);
  return () => {
    tickListeners.delete(listener);
    if (tickListeners.size === 0) {
      clearInterval(tickTimer);
      tickTimer = undefined;
    }
  };
}

/** Wall clock in milliseconds, renewed once a second, the same for every widget. */
export function useNow(): number {
  return useSyncExternalStore(subscribeTick, () => tickMs);
}

/** A derived value of board and clock; renders only when the value changes, so it should be a primitive. */
export function useBoardAt<T extends string | number | boolean | null>(
  select: (board: Board, nowMs: number) => T,
): T {
  const { store } = useBoardContext();
  const subscribe = useCallback(
    (listener: () => void) => {
      const offStore = store.subscribe(listener);
      const offTick = subscribeTick(listener);
      return () => {
        offStore();
        offTick();
      };
    },
    [store],
  );
  return useSyncExternalStore(subscribe, () => select(store.get(), tickMs));
}

function subscribeOnline(listener: () => void): () => void {
  window.addEventListener('online', listener);
  window.addEventListener('offline', listener);
  return () => {
    window.removeEventListener('online', listener);
    window.removeEventListener('offline', listener);
  };
}

/** Whether the machine has a network at all. */
export function useOnline(): boolean {
  return useSyncExternalStore(subscribeOnline, () => navigator.onLine);
}
