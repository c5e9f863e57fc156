/**
 * Another process with a store, which does what the test tells it. Promises between processes must be tested between
 * processes.
 *
 * Run directly, this file is that process. Imported, it starts one.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import type { Store } from '../../plugin/core/store.js'
import { openStore } from '../../plugin/stores/open.js'
import { newNode } from '../../plugin/testing/conformance/world.js'

const thisFile = fileURLToPath(import.meta.url)

/** The commands of the process. */
const commands = {
  /** Opens the store and runs the migrations. */
  async open(url: string) {
    store = await openStore({
      database: url,
      namespace: 'test',
      statementTimeoutMs: 30_000,
      migrate: true,
      push: false,
      log: { warn: (_fields, message) => complain(message) },
    })
  },
  async close() {
    await opened().close()
  },
  /** Has Node tell the time of the latest change as that of the creation, as it does on a system without `statx`. */
  async forgetBirths() {
    const { statSync } = fs
    const forgetful = (...args: unknown[]) => {
      const facts = Reflect.apply(statSync, fs, args)
      return facts && Object.assign(facts, { birthtimeNs: facts.ctimeNs })
    }
    Object.assign(fs, { statSync: forgetful })
    syncBuiltinESMExports()
  },
  /** Has Node refuse to look at this process in `/proc`, as its permission model does. */
  async hideProcess() {
    const { statSync } = fs
    const guarded = (...args: unknown[]) => {
      if (args[0] === '/proc/self')
        throw Object.assign(new Error('restricted'), { code: 'ERR_ACCESS_DENIED' })
      return Reflect.apply(statSync, fs, args)
    }
    Object.assign(fs, { statSync: guarded })
    syncBuiltinESMExports()
  },
  /** Adds a node. */
  async join(node: string) {
    await opened().change(undefined, (change) => change.addNode(newNode(node), 1))
  },
  /** Returns what this process takes the server for. */
  async identity(node: string) {
    return (await opened().view(node))?.serverIdentity
  },
  /** Makes news for a node. Returns the number of the change. */
  async tell(node: string) {
    const { result } = await opened().change(undefined, async (change) => {
      await change.tell(new Set([node]))
      return change.revision
    })
    return result
  },
  /** Listens and does nothing else. */
  async listen(node: string) {
    opened().listen(node, () => undefined)
  },
  /** Makes changes for ever, and sends the number of each that was acknowledged. */
  async changeForEver(node: string) {
    for (;;) process.send?.({ acknowledged: await commands.tell(node) })
  },
  /** Takes the one write slot of an SQLite file and keeps it. */
  async hold(path: string) {
    holder = new Sqlite(path)
    holder.exec('begin immediate')
  },
  async letGo() {
    holder?.close()
  },
}

let store: Store | undefined
let holder: Sqlite.Database | undefined

/** A process with a store. */
export interface StoreProcess {
  readonly child: ChildProcess
  /** Sends a command and returns its answer. Rejects with the message of its error. */
  ask<C extends keyof typeof commands>(
    command: C,
    ...args: Parameters<(typeof commands)[C]>
  ): Promise<Awaited<ReturnType<(typeof commands)[C]>>>
}

/** Starts a process that ends with the test. */
export function startProcess(t: { teardown(work: () => unknown): void }): StoreProcess {
  const child = fork(thisFile)
  t.teardown(() => kill(child))
  return {
    child,
    async ask(command, ...args) {
      child.send({ command, args })
      const answer = await answerOf(child)
      if (answer.error !== undefined) throw new Error(answer.error)
      return answer.result
    },
  }
}

/** Ends a process at once, as a power failure would. */
export async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

async function answerOf(child: ChildProcess) {
  const ended = new AbortController()
  const end = (): void => ended.abort(new Error('The process has ended.'))
  child.once('exit', end)
  try {
    const [answer] = await once(child, 'message', { signal: ended.signal })
    return answer
  } finally {
    child.off('exit', end)
  }
}

function opened(): Store {
  if (store === undefined) throw new Error('No store is open')
  return store
}

function complain(message: string): void {
  process.stderr.write(`${message}\n`)
}

function isCommand(name: string): name is keyof typeof commands {
  return Object.hasOwn(commands, name)
}

async function obey({ command, args }: { command: string; args: [string] }): Promise<void> {
  if (!isCommand(command)) throw new Error(`Unknown command ${command}`)
  const result = await commands[command](...args)
  process.send?.({ result })
}

if (process.argv[1] === thisFile) {
  process.on('message', (message: { command: string; args: [string] }) => {
    obey(message).catch((error) => process.send?.({ error: String(error) }))
  })
}
