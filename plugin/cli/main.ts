#!/usr/bin/env node
/** The command line as a program: what an operator asks and does where no HTTP route can be reached. */
import { userInfo } from 'node:os'
import { run } from './run.js'

// The reader of the output may have seen enough, `| head` for instance.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })

const { env, stdout: out, stderr: err } = process
process.exitCode = await run(process.argv.slice(2), { env, user, out, err })

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
