/** What the engine needs of a logger: what pino, and so Fastify's `log`, offers. */
export interface Log {
  debug(fields: object, message: string, ...values: unknown[]): void
  info(fields: object, message: string, ...values: unknown[]): void
  warn(fields: object, message: string, ...values: unknown[]): void
  error(fields: object, message: string, ...values: unknown[]): void
}

/** A level of a {@link PassLog}. */
export interface LogMethod {
  /**
   * @param what fields of the line, or an error, which becomes its field `err`.
   * @param message default the error's own. Placeholders in it (`%s`) are filled in by the log beneath, as pino does.
   */
  (what: unknown, message?: string, ...values: unknown[]): void
  (message: string, ...values: unknown[]): void
}

/** What passes receive: it is called as pino is, whatever the log beneath. */
export interface PassLog {
  readonly debug: LogMethod
  readonly info: LogMethod
  readonly warn: LogMethod
  readonly error: LogMethod
}

/** Says nothing. */
export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}

/** The same log, with these fields on every line. */
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
