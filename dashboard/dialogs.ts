/** The one dialog: a question before something is done, and afterwards what has become of it. */
import { ApiError } from './api.js'
import { type Child, h, icon, type Props, patch } from './dom.js'
import { ago, flawOfReason, type Lease, span } from './model.js'
import { button, facts, type Order, type Outcome } from './parts.js'

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

/** @param closed called whenever it has been closed, however. */
export function dialogIn(element: HTMLDialogElement, nowMs: () => number, closed: () => void): Dialog {
  let order: Order | undefined
  let flaw: Flaw | undefined
  let outcome: Outcome | undefined
  let busy = false

  const field = (name: string) =>
    element.querySelector<HTMLInputElement | HTMLSelectElement | HTMLButtonElement>(`[name=${name}]`)
  const textOf = (name: string): string => field(name)?.value.trim() ?? ''

  const draw = (): void => {
    if (order) patch(element, [outcome ? ending(outcome, nowMs(), close) : question(order)])
  }
  const close = (): void => element.close()

  const question = ({ title, facts: known, notes, nodes, reason, typed, submit, danger }: Order): Child =>
    h(
      'form',
      { novalidate: true, onsubmit: submitted, key: 'ask' },
      h('h2', { id: 'dialog-title' }, title),
      known && facts(known),
      ...notes.map(
        (note) =>
          note &&
          h(
            'p',
            { class: note[1] ? `note ${note[1]}` : 'muted' },
            note[1] && icon('alert'),
            h('span', note[0]),
          ),
      ),
      nodes &&
        h(
          'label',
          'To',
          h(
            'select',
            { name: 'node', disabled: busy },
            ...nodes.map(({ id, name, cluster }) =>
              h('option', { value: id, key: id }, `${name} (${cluster})`),
            ),
          ),
        ),
      reason && entry('reason', 'Reason, kept in the audit trail', { maxlength: 200 }),
      typed && entry('typed', ['Type ', h('b', h('bdi', typed)), ' to confirm'], { spellcheck: 'false' }),
      h(
        'footer',
        button('Keep it as it is', close, { disabled: busy }),
        h(
          'button',
          { name: 'submit', class: danger ? 'danger' : 'main', disabled: busy },
          busy ? 'One moment…' : submit,
        ),
      ),
    )

  const entry = (name: Flaw['field'], label: Child, more: Props): Child => {
    const flawed = flaw?.field === name ? flaw.text : undefined
    const described = flawed && { 'aria-invalid': 'true', 'aria-describedby': 'flaw' }
    return [
      h(
        'label',
        h('span', label),
        h('input', { name, autocomplete: 'off', disabled: busy, ...more, ...described }),
      ),
      flawed && h('p.flaw', { id: 'flaw', role: 'alert' }, icon('alert'), flawed),
    ]
  }

  const submitted = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    if (busy || !order) return
    const [reason, node] = [textOf('reason'), textOf('node')]
    flaw = flawIn(order, reason, textOf('typed'))
    busy = flaw === undefined
    draw()
    if (flaw !== undefined) return field(flaw.field)?.focus()
    const { run, refused } = order
    outcome = await run(reason, node).catch((error: unknown) => failed(refused, error, nowMs()))
    busy = false
    draw()
    field('close')?.focus()
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
      element.querySelector<HTMLElement>('select, input, [name=submit]')?.focus()
    },
  }
}

function flawIn({ reason: asks, typed }: Order, reason: string, confirmed: string): Flaw | undefined {
  const text = asks ? flawOfReason(reason) : undefined
  if (text !== undefined) return { field: 'reason', text }
  if (!typed || confirmed === typed) return undefined
  return { field: 'typed', text: `The holder is healthy: type ${typed} to show that you mean it.` }
}

function ending({ title, lines, safeAtMs, failed }: Outcome, nowMs: number, close: () => void): Child {
  const leftMs = (safeAtMs ?? 0) - nowMs
  return h(
    'div.end',
    { key: 'end' },
    h('h2', { id: 'dialog-title', class: failed ? 'bad' : 'calm' }, icon(failed ? 'alert' : 'check'), title),
    h('div', { role: 'status' }, ...lines.map((line) => h('p', line))),
    safeAtMs !== undefined &&
      h('b', leftMs > 0 ? `Safe in ${span(leftMs + 999)}` : 'Safe: it has stopped by now.'),
    h('footer', button('Close', close, { name: 'close' })),
  )
}

/** What is known about what was not done, and no more. */
function failed(refused: string, error: unknown, nowMs: number): Outcome {
  const told = (title: string, ...lines: string[]): Outcome => ({ title, lines, failed: true })
  if (!(error instanceof ApiError)) return told('It did not work', String(error))
  const { message, failure } = error
  if (error.status === 412) return told(refused, ...(movedOn(error.current, nowMs) ?? [message]))
  if (failure === 'refused') return told(refused, message)
  if (failure === 'signed-out') return told(refused, 'You may not do this.', message)
  return told(
    'No answer',
    'Whether it was done is not known. Close this, and look before you try again.',
    message,
  )
}

/** Undefined when the server has not said how it is now. */
function movedOn(current: Partial<Lease> | undefined, nowMs: number): string[] | undefined {
  const { holder, token, acquiredAt } = current ?? {}
  if (token === undefined) return undefined
  const since = acquiredAt ? `, taken ${ago(nowMs - Date.parse(acquiredAt))}` : ''
  return [
    'It is not held any more as it was when you were asked.',
    holder
      ? `The leader now is ${holder.name}, with token ${token}${since}.`
      : `Nobody holds it at the moment; its latest token is ${token}.`,
  ]
}
