/** The one dialog: a question before something is done, and afterwards what has become of it. */
import { ApiError, write } from './api.js'
import { type Child, h, icon, type Props, patch } from './dom.js'
import { span } from './model.js'
import { button, facts, type Order } from './parts.js'

export interface Dialog {
  isOpen(): boolean
  ask(order: Order): void
  /** To be called every second: it may be counting. */
  draw(): void
}

interface Flaw {
  readonly field: 'reason' | 'typed'
  readonly text: string
}

interface Outcome {
  readonly title: string
  readonly lines: readonly (string | undefined)[]
  /** It was not done, or nobody knows. */
  readonly failed?: boolean
  /** Counted down to, by the database's clock. */
  readonly safeAtMs?: number | undefined
}

/** What of an answer is shown. Where there is nothing to say it is empty. */
interface Answer {
  readonly sentence?: string
  readonly released?: boolean
  readonly acknowledged?: boolean
  readonly safeAt?: string
}

/** @param closed called whenever it has been closed, however. */
export function dialogIn(element: HTMLDialogElement, nowMs: () => number, closed: () => void): Dialog {
  let order: Order | undefined
  let flaw: Flaw | undefined
  let outcome: Outcome | undefined
  let busy = false

  const focus = (what: string): void => element.querySelector<HTMLElement>(what)?.focus()
  const close = (): void => element.close()
  const draw = (): void => {
    if (order) patch(element, [outcome ? ending(outcome, nowMs(), close) : question(order)])
  }

  const question = ({ title, facts: known, notes, nodes, method, typed, submit, danger }: Order): Child =>
    h(
      'form',
      { novalidate: true, onsubmit: submitted, key: 'ask' },
      h('h2', { id: 'dialog-title' }, title),
      known && facts(known),
      ...notes,
      h(
        'fieldset',
        { disabled: busy },
        nodes &&
          h(
            'label',
            'To',
            h(
              'select',
              { name: 'to' },
              ...nodes.map(({ id, name, cluster }) => h('option', { value: id }, `${name} (${cluster})`)),
            ),
          ),
        method !== 'DELETE' && entry('reason', 'Reason, kept in the audit trail', { maxlength: 200 }),
        typed && entry('typed', ['Type ', h('b', h('bdi', typed)), ' to confirm'], { spellcheck: 'false' }),
        h(
          'footer',
          button('Keep it as it is', close),
          h('button', { name: 'submit', class: danger ? 'danger' : 'main' }, busy ? 'One moment…' : submit),
        ),
      ),
    )

  const entry = (name: Flaw['field'], label: Child, more: Props): Child => {
    const flawed = flaw?.field === name && flaw.text
    const described = flawed && { 'aria-invalid': 'true', 'aria-describedby': 'flaw' }
    return [
      h('label', h('span', label), h('input', { name, autocomplete: 'off', ...more, ...described })),
      flawed && h('p.flaw', { id: 'flaw', role: 'alert' }, icon('alert'), flawed),
    ]
  }

  const submitted = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    if (busy || !order) return
    const given = answersIn(event.target as HTMLFormElement)
    flaw = flawIn(order, given)
    busy = flaw === undefined
    draw()
    if (flaw) return focus('[aria-invalid]')
    outcome = await carriedOut(order, given)
    busy = false
    draw()
    focus('[name=close]')
  }

  element.addEventListener('close', () => {
    order = undefined
    patch(element, [])
    closed()
  })
  element.addEventListener('cancel', (event) => {
    if (busy) event.preventDefault()
  })
  return {
    draw,
    isOpen: () => element.open,
    ask(asked) {
      if (element.open) return
      order = asked
      flaw = outcome = undefined
      draw()
      element.showModal()
      focus('select, input, [name=submit]')
    },
  }
}

/** What has been filled in; what was not asked for is not there. */
interface Given {
  readonly reason?: string
  readonly typed?: string
  readonly to?: string
}

function answersIn(form: HTMLFormElement): Given {
  return Object.fromEntries([...new FormData(form)].map(([name, text]) => [name, String(text).trim()]))
}

function flawIn({ typed }: Order, given: Given): Flaw | undefined {
  if (given.reason !== undefined && given.reason.length < 3)
    return { field: 'reason', text: 'Say why, in at least 3 characters.' }
  if (given.typed === typed) return undefined
  return { field: 'typed', text: `The holder is healthy: type ${typed} to show that you mean it.` }
}

/** What has become of it. */
async function carriedOut(order: Order, { reason, to }: Given): Promise<Outcome> {
  const { method, path, token, done, refused = 'Nothing was done.' } = order
  const body = reason === undefined ? undefined : { reason, to }
  return write<Answer>(method, path, body, token).then(
    ({ sentence, released = true, acknowledged, safeAt }) => ({
      title: released ? done : refused,
      lines: [sentence],
      safeAtMs: released && !acknowledged && safeAt ? Date.parse(safeAt) : undefined,
    }),
    (error: Error) => failed(refused, error),
  )
}

/** What is known about what was not done, and no more. */
function failed(refused: string, error: Error): Outcome {
  const failure = error instanceof ApiError ? error.failure : 'away'
  const told = (title: string, ...lines: string[]): Outcome => ({
    title,
    lines: [...lines, error.message],
    failed: true,
  })
  if (failure === 'refused') return told(refused)
  if (failure === 'signed-out') return told(refused, 'You may not do this.')
  return told('No answer', 'Whether it was done is not known: look before you try again.')
}

function ending({ title, lines, safeAtMs, failed }: Outcome, nowMs: number, close: () => void): Child {
  const leftMs = (safeAtMs ?? 0) - nowMs
  return h(
    'div.end',
    { key: 'end' },
    h('h2', { id: 'dialog-title', class: failed ? 'bad' : 'calm' }, icon(failed ? 'alert' : 'check'), title),
    h('div', { role: 'status' }, ...lines.map((line) => line && h('p', line))),
    safeAtMs !== undefined &&
      h('b', leftMs > 0 ? `Safe in ${span(leftMs + 999)}` : 'Safe: it has stopped by now.'),
    h('footer', button('Close', close, { name: 'close' })),
  )
}
