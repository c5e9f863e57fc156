/** Loading a database's driver late, so that nobody needs the driver of a database they do not use. */
import { CoordinationError } from '../../core/errors.js'

/**
 * Answers what `load` imports; when that cannot be loaded, says what to install.
 *
 * @param install the package, with a version where the newest will not do: what follows `npm install`.
 * @throws CoordinationError `WCO_DRIVER_MISSING`
 */
export async function loadDriver<T>(install: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (error) {
    throw driverMissing(install, error)
  }
}

/** The error that says what to install. */
export function driverMissing(install: string, cause: unknown): CoordinationError {
  const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause)
  return new CoordinationError(
    'WCO_DRIVER_MISSING',
    `The driver for this database could not be loaded. Run \`npm install ${install}\`. (${why})`,
    { cause },
  )
}
