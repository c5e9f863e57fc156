/** What the engine needs of a logger; pino, and so Fastify's `log`, provides it. */
export interface Log {
  debug(fields: object, message: string, ...values: unknown[]): void
  info(fields: object, message: string, ...values: unknown[]): void
  warn(fields: object, message: string, ...values: unknown[]): void
  error(fields: object, message: string, ...values: unknown[]): void
}

/** One level of a {@link PassLog}. */
export interface LogMethod {
  /**
   * @param what the fields of the line, or an error, which becomes its field `err`.
   * @param message defaults to the error's own. The underlying log fills in placeholders (`%s`), as pino does.
   */
  (what: unknown, message?: string, ...values: unknown[]): void
  (message: string, ...values: unknown[]): void
}

/** The log that passes receive. It is called like pino, whatever the underlying log. */
export interface PassLog {
  readonly debug: LogMethod
  readonly info: LogMethod
  readonly warn: LogMethod
  readonly error: LogMethod
}

/** A log that discards everything. */
export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}

/** Returns the same log, with these fields on every line. Its methods never throw, whatever the log does. */
export function withFields(log: Log, fields: object): PassLog {
  const at =
    (level: keyof Log): LogMethod =>
    (what: unknown, ...rest: unknown[]) => {
      const more = what ?? {}
      if (typeof more !== 'object') {
        write(log, level, { ...fields }, String(more), rest)
        return
      }
      const own = more instanceof Error ? { err: more } : more
      const [message = messageIn(own), ...values] = rest as [message?: string, ...values: unknown[]]
      write(log, level, { ...fields, ...own }, message, values)
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/**
 * A log may throw: it may be closed, or choke on an error of the application, which can hold anything. The engine logs
 * in the middle of what must not be left half done, so nothing of that gets out; the line is written once more without
 * what the log may have choked on.
 */
function write(
  log: Log,
  level: keyof Log,
  fields: object,
  message: string,
  values: readonly unknown[],
): void {
  const call = (given: object, ...more: readonly unknown[]): void => {
    const answer: unknown = log[level](given, message, ...more)
    if (answer instanceof Promise) answer.catch(() => undefined)
  }
  try {
    call(fields, ...values)
  } catch (error) {
    try {
      call({ ...plainOnes(fields), logError: String(error) })
    } catch {
      // There is nobody left to tell.
    }
  }
}

function plainOnes(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => Object(value) !== value))
}

function messageIn(fields: object): string {
  return 'err' in fields && fields.err instanceof Error ? fields.err.message : ''
}
