/**
 * Three nodes on one machine, for trying things out: `npm start`. Each node is a separate process. This process only
 * starts them, prints their logs, and stops them at the end; it takes no part in the coordination.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { dashboard, type ExampleNode, exampleNodes } from './nodes.js'

const program = fileURLToPath(new URL('./node.js', import.meta.url))
const running = new Map<number, ChildProcess>()
let stopping = false

for (const node of exampleNodes) start(node)
say(`Three nodes are starting. Things to try:
    in the browser       ${dashboard}: who leads, and why; frees what is stuck
    kill -9 <pid>        its work moves to the others within a second
    kill <pid>           it hands its work over at once
    1, 2 or 3, Enter     starts that node again, and the work is shared out anew
    Ctrl-C               stops them all`)

createInterface({ input: process.stdin }).on('line', (line) => {
  const node = exampleNodes.find(({ number }) => String(number) === line.trim())
  if (node === undefined) say('Type 1, 2 or 3 and Enter to start a node that has ended.')
  else if (running.has(node.number)) say(`${node.node} is running already.`)
  else start(node)
})

process.on('SIGINT', stop)
process.on('SIGTERM', stop)
if (process.env.npm_lifecycle_event !== undefined) stopWithParent()

function start(node: ExampleNode): void {
  if (stopping) return
  const child = fork(program, [String(node.number)], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  running.set(node.number, child)
  for (const output of [child.stdout, child.stderr]) {
    if (output !== null) createInterface({ input: output }).on('line', (line) => print(node, line))
  }
  child.on('exit', (code, signal) => {
    running.delete(node.number)
    print(node, `has ended (${signal ?? `exit code ${code}`})`)
    if (stopping) leaveWhenAllHave()
    else say(`Type ${node.number} and Enter to start ${node.node} again.`)
  })
}

/** Asks all nodes to stop. Each hands over its work and then ends by itself. */
function stop(): void {
  stopping = true
  for (const child of running.values()) child.kill('SIGTERM')
  leaveWhenAllHave()
}

/** Stops when `npm start` has ended. A signal that ends it does not reach this program. */
function stopWithParent(): void {
  const parent = process.ppid
  const watch = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(watch)
    stop()
  }, 500)
  watch.unref()
}

/** Ends this process once all nodes have ended. Only waiting for input keeps it alive. */
function leaveWhenAllHave(): void {
  if (running.size === 0) process.stdin.destroy()
}

function print(node: ExampleNode, line: string): void {
  console.log(`${node.node} | ${line}`)
}

function say(text: string): void {
  console.log(`\n${text}\n`)
}
