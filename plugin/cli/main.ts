#!/usr/bin/env node
/** The command line as a program: what an operator asks and does where no HTTP route can be reached. */
import { userInfo } from 'node:os'
import { exitCodes } from './output.js'
import { run } from './run.js'

const { env, stdout: out, stderr: err } = process
out.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of the output may have seen enough, `| head` for instance.
  if (error.code === 'EPIPE') return
  err.write(`The answer could not be written: ${error.message}. What was asked for may have been done.\n`)
  process.exitCode = exitCodes.unwritten
})
err.on('error', () => undefined)
const code = await run(process.argv.slice(2), { env, user, out, err })
process.exitCode ??= code

/** Returns the user's name, or the number where this machine has no name for it, as in many containers. */
function user(): string {
  try {
    return userInfo().username
  } catch (error) {
    const uid = process.geteuid?.()
    if (uid === undefined) throw error
    return `uid ${uid}`
  }
}
