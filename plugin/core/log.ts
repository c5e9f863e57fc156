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

/** Returns the same log, with these fields on every line. */
export function withFields(log: Log, fields: object): PassLog {
  const at =
    (level: keyof Log): LogMethod =>
    (what: unknown, ...rest: unknown[]) => {
      const more = what ?? {}
      if (typeof more !== 'object') {
        log[level]({ ...fields }, String(more), ...rest)
        return
      }
      const own = more instanceof Error ? { err: more } : more
      const [message = messageIn(own), ...values] = rest as [message?: string, ...values: unknown[]]
      log[level]({ ...fields, ...own }, message, ...values)
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function messageIn(fields: object): string {
  return 'err' in fields && fields.err instanceof Error ? fields.err.message : ''
}
