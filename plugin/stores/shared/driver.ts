/** Loads a database's driver on demand, so that an application needs only the driver of the database that it uses. */
import { CoordinationError } from '../../core/errors.js'

/**
 * Returns what `load` imports, or throws an error that says what to install.
 *
 * @param install the package, with a version where the newest one does not work: what follows `npm install`.
 * @throws CoordinationError `WCO_DRIVER_MISSING`
 */
export async function loadDriver<T>(install: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (error) {
    throw driverMissing(install, error)
  }
}

/** Returns the error that says what to install. */
export function driverMissing(install: string, cause: unknown): CoordinationError {
  const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause)
  return new CoordinationError(
    'WCO_DRIVER_MISSING',
    `The driver for this database could not be loaded. Run \`npm install ${install}\`. (${why})`,
    { cause },
  )
}
