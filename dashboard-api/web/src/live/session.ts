/**
 * Who looks at the board: the session endpoint and the token a person brought.
 *
 * The token comes from the sign-in panel or from `#token=` in the address (taken out of it at once, so that
 * it does not stay in the history). It is kept for this tab only.
 */
import * as v from 'valibot';
import { type Session, SessionSchema, TokensSchema } from '../wire/schema';

const STORAGE_KEY = 'andon.token';
/** An answer that takes longer counts as no answer. */
const SESSION_TIMEOUT_MS = 8_000;

/** The server wants a token, or does not take the one it got. */
export class NotSignedIn extends Error {
  override readonly name = 'NotSignedIn';
}

export interface SessionAnswer {
  readonly session: Session;
  /** The server's clock minus this machine's, from the Date header; 0 if unknown. */
  readonly clockOffsetMs: number;
}

export function takeTokenFromAddress(location: Location, history: History): void {
  const match = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (!match?.[1]) return;
  keepToken(decodeURIComponent(match[1]));
  history.replaceState(null, '', location.pathname + location.search);
}

export function keptToken(): string | null {
  try {
    return sessionStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}

export function keepToken(token: string | null): void {
  try {
    if (token) sessionStorage.setItem(STORAGE_KEY, token.trim());
    else sessionStorage.removeItem(STORAGE_KEY);
  } catch {
    // Storage is switched off: the person signs in again after a reload.
  }
}

/** Headers for the REST calls of this session. */
export function authorization(token: string | null): Record<string, string> {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/**
 * Signs in with a password. The refresh token goes into a cookie that no script can read; the answer is the access
 * token, or null if the server refuses.
 */
export async function passwordSignIn(
  base: string,
  user: string,
  password: string,
): Promise<string | null> {
  return accessToken(base, 'login', { user, password, cookie: true });
}

async function accessToken(base: string, route: string, body: object): Promise<string | null> {
  const response = await fetch(`${base}/api/v1/auth/${route}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Andon-Csrf': '1' },
    body: JSON.stringify(body),
    credentials: 'same-origin',
    cache: 'no-store',
    signal: AbortSignal.timeout(SESSION_TIMEOUT_MS),
  });
  if (!response.ok) return null;
  return v.parse(TokensSchema, await response.json()).access_token;
}

/** Asks who we are; an access token that has run out is renewed by the cookie of a sign-in. @throws NotSignedIn on 401 and 403, any other Error if there is no usable answer. */
export async function fetchSession(base: string): Promise<SessionAnswer> {
  let token = keptToken();
  let response = await askSession(base, token);
  if (response.status === 401) {
    const renewed = await accessToken(base, 'refresh', {}).catch(() => null);
    if (renewed) {
      keepToken(renewed);
      token = renewed;
      response = await askSession(base, token);
    }
  }
  if (response.status === 401 || response.status === 403)
    throw new NotSignedIn(`session: HTTP ${response.status}`);
  if (!response.ok) throw new Error(`session: HTTP ${response.status}`);
  const session = v.parse(SessionSchema, await response.json());
  const date = Date.parse(response.headers.get('date') ?? '');
  const offset = Number.isNaN(date) ? 0 : date + 500 - Date.now();
  return {
    session: { ...session, token: session.token ?? token },
    // The header has whole seconds, so a small difference says nothing.
    clockOffsetMs: Math.abs(offset) < 2_000 ? 0 : offset,
  };
}

function askSession(base: string, token: string | null): Promise<Response> {
  return fetch(`${base}/api/v1/session`, {
    headers: { Accept: 'application/json', ...authorization(token) },
    cache: 'no-store',
    signal: AbortSignal.timeout(SESSION_TIMEOUT_MS),
  });
}
