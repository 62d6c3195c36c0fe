/** Takes a name and password or an access token, when the server asks for one. */
import { KeyRound } from 'lucide-react';
import { useId, useState } from 'react';
import { useBoard, useBoardContext } from '../live/context';
import { passwordSignIn } from '../live/session';
import { useTexts } from '../messages';
import styles from './SignInPanel.module.css';

export function SignInPanel() {
  const { m } = useTexts();
  const { live } = useBoardContext();
  const tokenRejected = useBoard((board) => board.signIn === 'rejected');
  const [wrong, setWrong] = useState(false);
  const rejected = tokenRejected || wrong;
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [token, setToken] = useState('');
  const userId = useId();
  const passwordId = useId();
  const inputId = useId();
  const errorId = useId();
  return (
    <form
      className={styles.panel}
      onSubmit={(event) => {
        event.preventDefault();
        if (token.trim()) {
          live.signIn(token);
          return;
        }
        if (!user.trim()) return;
        setWrong(false);
        passwordSignIn('', user.trim(), password)
          .catch(() => null)
          .then((access) => (access ? live.signIn(access) : setWrong(true)));
      }}
    >
      <h2 className={styles.title}>
        <KeyRound aria-hidden="true" size={22} />
        {m.signIn}
      </h2>
      <p>{m.signInText}</p>
      <label htmlFor={userId} className={styles.label}>
        {m.user}
      </label>
      <input
        id={userId}
        className={styles.input}
        autoComplete="username"
        spellCheck={false}
        value={user}
        onChange={(event) => setUser(event.target.value)}
      />
      <label htmlFor={passwordId} className={styles.label}>
        {m.password}
      </label>
      <input
        id={passwordId}
        className={styles.input}
        type="password"
        autoComplete="current-password"
        value={password}
        onChange={(event) => setPassword(event.target.value)}
      />
      <label htmlFor={inputId} className={styles.label}>
        {m.token}
      </label>
      <input
        id={inputId}
        className={styles.input}
        type="password"
        autoComplete="off"
        spellCheck={false}
        value={token}
        onChange={(event) => setToken(event.target.value)}
        aria-invalid={rejected}
        aria-describedby={rejected ? errorId : undefined}
      />
      {rejected && (
        <p id={errorId} className={styles.error} role="alert">
          {m.signInRejected}
        </p>
      )}
      <button type="submit" className={styles.submit}>
        {m.signIn}
      </button>
    </form>
  );
}
