/** The one dialog: it asks for confirmation before an action and then shows the outcome. */
import { ApiError, write } from './api.js'
import { type Child, h, icon, type Props, patch } from './dom.js'
import { type Answer, type LeaseItem, span } from './model.js'
import { button, facts, type Order } from './parts.js'

export interface Dialog {
  isOpen(): boolean
  /** @param order returns the question in its present form; called again at each {@link Dialog.draw}. */
  ask(order: () => Order): void
  /** Returns the key of the lease that the question is about, if its holder is to be told. */
  follows(): string | undefined
  /**
   * Must be called every second, because the dialog may show a countdown.
   *
   * @param followed the lease of {@link Dialog.follows}, as it was read last.
   */
  draw(followed?: LeaseItem): void
}

interface Flaw {
  readonly field: 'reason' | 'typed'
  readonly text: string
}

interface Outcome {
  readonly title: string
  readonly lines: readonly (string | undefined)[]
  /** The action failed, or its result is unknown. */
  readonly failed?: boolean
  /** End of the countdown, by the database's clock. */
  readonly safeAtMs?: number | undefined
  /** Text to show after the countdown. */
  readonly afterwards?: string | undefined
  /** The lease that was released, and the token of the term that this has ended. */
  readonly lease?: { readonly key: string; readonly token: number } | undefined
}

/** A question and its progress. */
interface Asked {
  /** Returns the question in its present form. */
  readonly order: () => Order
  flaw?: Flaw | undefined
  busy: boolean
  outcome?: Outcome
}

/** @param closed called each time the dialog has been closed, in whatever way. */
export function dialogIn(element: HTMLDialogElement, nowMs: () => number, closed: () => void): Dialog {
  let asked: Asked | undefined
  let followed: LeaseItem | undefined
  /** Questions whose dialog was closed before the outcome was known. */
  const late: Asked[] = []

  const focus = (what: string): void => element.querySelector<HTMLElement>(what)?.focus()
  const close = (): void => element.close()
  const draw = (): void => {
    if (asked)
      patch(element, [asked.outcome ? ending(asked.outcome, nowMs(), close, followed) : question(asked)])
  }
  const show = (next: Asked, focused: string): void => {
    asked = next
    draw()
    element.showModal()
    focus(focused)
  }

  const question = ({ order, busy, flaw }: Asked): Child => {
    const { title, facts: known, notes, nodes, method, typed, submit, danger } = order()
    const entry = (name: Flaw['field'], label: Child, more: Props): Child => {
      const flawed = flaw?.field === name && flaw.text
      const described = flawed && { 'aria-invalid': 'true', 'aria-describedby': 'flaw' }
      return [
        h(
          'label',
          { key: name },
          h('span', label),
          h('input', { name, autocomplete: 'off', ...more, ...described }),
        ),
        flawed && h('p.flaw', { id: 'flaw', role: 'alert' }, icon('alert'), flawed),
      ]
    }
    return h(
      'form',
      { novalidate: true, onsubmit: submitted, key: 'ask' },
      h('h2', { id: 'dialog-title' }, title),
      known && facts(known),
      ...notes,
      h(
        'fieldset',
        { disabled: busy, key: 'fields' },
        nodes &&
          h(
            'label',
            'To',
            h(
              'select',
              { name: 'to' },
              ...nodes.map(({ id, name, cluster }) =>
                h('option', { value: id }, `${name} (${cluster}, ${id.slice(0, 8)})`),
              ),
            ),
          ),
        entry('reason', `Reason, kept in the audit trail${method === 'DELETE' ? '; none is needed' : ''}`, {
          maxlength: 200,
        }),
        typed && entry('typed', ['Type ', h('b', h('bdi', typed)), ' to confirm'], { spellcheck: 'false' }),
        h(
          'footer',
          { key: 'foot' },
          button('Cancel', close),
          h('button', { name: 'submit', class: danger ? 'danger' : 'main' }, busy ? 'One moment…' : submit),
        ),
      ),
    )
  }

  const submitted = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const mine = asked
    if (!mine || mine.busy) return
    const order = mine.order()
    const given = answersIn(event.target as HTMLFormElement)
    mine.flaw = flawIn(order, given)
    mine.busy = mine.flaw === undefined
    draw()
    if (mine.flaw) return focus('[aria-invalid]')
    mine.outcome = await carriedOut(order, given)
    if (asked === mine && element.open) {
      draw()
      focus('[name=close]')
    } else {
      late.push(mine)
      tellLate()
    }
  }

  /** Shows the outcome of a question that was closed early, once no other question is open. */
  const tellLate = (): void => {
    const next = asked ? undefined : late.shift()
    if (next) show(next, '[name=close]')
  }

  element.addEventListener('close', () => {
    asked = undefined
    patch(element, [])
    closed()
    tellLate()
  })
  element.addEventListener('cancel', (event) => {
    if (asked?.busy && !asked.outcome) event.preventDefault()
  })
  return {
    draw(lease) {
      followed = lease
      draw()
    },
    follows: () => asked?.order().follows,
    isOpen: () => element.open,
    ask(order) {
      if (!element.open) show({ order, busy: false }, 'select, input, [name=submit]')
    },
  }
}

/** The submitted fields, without those that were not asked for. */
interface Given {
  readonly reason?: string
  readonly typed?: string
  readonly to?: string
}

function answersIn(form: HTMLFormElement): Given {
  return Object.fromEntries([...new FormData(form)].map(([name, text]) => [name, String(text).trim()]))
}

function flawIn({ typed, method }: Order, given: Given): Flaw | undefined {
  const { reason = '' } = given
  if (reason.length < 3 && (reason !== '' || method !== 'DELETE'))
    return { field: 'reason', text: 'Say why, in at least 3 characters.' }
  if (given.typed === typed) return undefined
  return { field: 'typed', text: `The holder is healthy: type ${typed} to show that you mean it.` }
}

/** Performs the action and returns its outcome. */
async function carriedOut(order: Order, { reason, to }: Given): Promise<Outcome> {
  const { title, method, path, token, done, afterwards, follows, refused = 'Nothing was done.' } = order
  const withdraws = method === 'DELETE'
  const query = withdraws && reason ? `?reason=${encodeURIComponent(reason)}` : ''
  return write<Answer>(method, path + query, withdraws ? undefined : { reason, to }, token).then(
    ({ sentence, released = true, acknowledged, safeAt }) => ({
      title: released ? done : refused,
      lines: [released ? undefined : `You asked: ${title}`, sentence],
      safeAtMs: released && !acknowledged && safeAt ? Date.parse(safeAt) : undefined,
      afterwards,
      lease: released && follows && token !== undefined ? { key: follows, token } : undefined,
    }),
    (error: Error) => failed(title, refused, error),
  )
}

/** States only what is known: without an answer, the action may have been performed. */
function failed(question: string, refused: string, error: Error): Outcome {
  const failure = error instanceof ApiError ? error.failure : 'away'
  const told = (title: string, ...lines: string[]): Outcome => ({
    title,
    lines: [`You asked: ${question}`, ...lines],
    failed: true,
  })
  if (failure === 'refused') return told(refused, error.message)
  if (failure === 'signed-out') return told(refused, 'You may not do this.', error.message)
  return told('No answer', 'Whether it was done is not known: look before you try again.', error.message)
}

function ending(outcome: Outcome, nowMs: number, close: () => void, followed?: LeaseItem): Child {
  const { title, lines, safeAtMs, afterwards, failed } = outcome
  const next = nextHolder(outcome, followed)
  const leftMs = (safeAtMs ?? 0) - nowMs
  return h(
    'div.end',
    { key: 'end' },
    h('h2', { id: 'dialog-title', class: failed ? 'bad' : 'calm' }, icon(failed ? 'alert' : 'check'), title),
    h('div', { role: 'status' }, ...(next ? [next.sentence] : lines).map((line) => line && h('p', line))),
    safeAtMs !== undefined &&
      !next &&
      h('b', `The next holder may begin ${leftMs > 0 ? `in ${span(leftMs + 999)}` : 'now.'}`),
    safeAtMs !== undefined && (next ? next.waited : leftMs <= 0) && afterwards && h('p', afterwards),
    h('footer', { key: 'foot' }, button('Close', close, { name: 'close' })),
  )
}

/**
 * Returns who has the lease after the release. Who has `waited` began when the wait was over, and not because the old
 * holder had stopped.
 */
function nextHolder(
  { lease, safeAtMs }: Outcome,
  followed: LeaseItem | undefined,
): { sentence: string; waited: boolean } | undefined {
  if (!lease || followed?.key !== lease.key || !followed.holder || followed.token <= lease.token)
    return undefined
  const { holder, token, worker, key, acquiredAt } = followed
  const what = worker === key ? 'leads now' : 'holds it now'
  const waited = safeAtMs !== undefined && (!acquiredAt || Date.parse(acquiredAt) >= safeAtMs)
  return { sentence: `${holder.name} ${what}, with token ${token}.`, waited }
}
