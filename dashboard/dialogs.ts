/** The one dialog: a question before something is done, and afterwards what has become of it. */
import { ApiError } from './api.js'
import { type Child, h, icon, patch } from './dom.js'
import { ago, flawOfReason, type Lease, span } from './model.js'
import { button, facts, type Order, type Outcome } from './parts.js'

type Phase =
  | {
      readonly kind: 'asking' | 'busy'
      readonly flaw?: { readonly field: string; readonly text: string } | undefined
    }
  | { readonly kind: 'done'; readonly outcome: Outcome }
  | { readonly kind: 'failed'; readonly title: string; readonly lines: readonly string[] }

export class Dialog {
  readonly #element: HTMLDialogElement
  readonly #nowMs: () => number
  #order: Order | undefined
  #phase: Phase = { kind: 'asking' }

  /** @param closed called whenever it has been closed, however. */
  constructor(element: HTMLDialogElement, nowMs: () => number, closed: () => void) {
    this.#element = element
    this.#nowMs = nowMs
    element.addEventListener('close', () => {
      this.#order = undefined
      patch(element, [])
      closed()
    })
    element.addEventListener('cancel', (event) => {
      if (this.#phase.kind === 'busy') event.preventDefault()
    })
  }

  get open(): boolean {
    return this.#element.open
  }

  ask(order: Order): void {
    if (this.open) return
    this.#order = order
    this.#phase = { kind: 'asking' }
    this.draw()
    this.#element.showModal()
    this.#field('node', 'reason', 'submit')?.focus()
  }

  /** To be called every second: it may be counting. */
  draw(): void {
    const order = this.#order
    if (order === undefined) return
    patch(
      this.#element,
      this.#phase.kind === 'done' || this.#phase.kind === 'failed'
        ? this.#ended(this.#phase)
        : this.#asking(order),
    )
  }

  #asking(order: Order): Child[] {
    const { kind, flaw } = this.#phase as { kind: string; flaw?: { field: string; text: string } }
    const busy = kind === 'busy'
    const wrong = (field: string): Child =>
      flaw?.field === field &&
      h('p', { class: 'flaw', id: `flaw-${field}`, role: 'alert' }, icon('alert'), flaw.text)
    const described = (field: string) =>
      flaw?.field === field ? { 'aria-invalid': 'true', 'aria-describedby': `flaw-${field}` } : {}
    const submit = (event: SubmitEvent): void => {
      event.preventDefault()
      if (!busy) void this.#submit(order)
    }
    return [
      h(
        'form',
        { novalidate: true, onsubmit: submit, key: 'ask' },
        h('h2', { id: 'dialog-title' }, order.title),
        order.facts.length > 0 && facts(order.facts),
        ...order.notes.map(({ tone, text }) =>
          h(
            'p',
            { class: tone === 'off' ? 'muted' : `note ${tone}` },
            tone !== 'off' && icon('alert'),
            h('span', text),
          ),
        ),
        order.nodes &&
          h(
            'label',
            'To',
            h(
              'select',
              { name: 'node', disabled: busy },
              ...order.nodes.map(({ id, name, cluster }) =>
                h('option', { value: id, key: id }, `${name} (${cluster})`),
              ),
            ),
          ),
        order.reason &&
          h(
            'label',
            'Reason, kept in the audit trail',
            h('input', {
              name: 'reason',
              autocomplete: 'off',
              maxlength: 200,
              disabled: busy,
              ...described('reason'),
            }),
          ),
        wrong('reason'),
        order.typed !== undefined &&
          h(
            'label',
            h('span', 'Type ', h('b', h('bdi', order.typed)), ' to confirm'),
            h('input', {
              name: 'typed',
              autocomplete: 'off',
              spellcheck: 'false',
              disabled: busy,
              ...described('typed'),
            }),
          ),
        wrong('typed'),
        h(
          'footer',
          button('Keep it as it is', () => this.#element.close(), { disabled: busy }),
          h(
            'button',
            {
              type: 'submit',
              name: 'submit',
              class: order.danger === true ? 'danger' : 'main',
              disabled: busy,
            },
            busy ? 'One moment…' : order.submit,
          ),
        ),
      ),
    ]
  }

  #ended(phase: Extract<Phase, { kind: 'done' | 'failed' }>): Child[] {
    const { title, lines } = phase.kind === 'done' ? phase.outcome : phase
    const safeAtMs = phase.kind === 'done' ? phase.outcome.safeAtMs : undefined
    const leftMs = (safeAtMs ?? 0) - this.#nowMs()
    return [
      h(
        'div',
        { key: 'end', class: 'end' },
        h(
          'h2',
          { id: 'dialog-title', class: phase.kind === 'done' ? 'calm' : 'bad' },
          icon(phase.kind === 'done' ? 'check' : 'alert'),
          title,
        ),
        h('div', { role: 'status' }, ...lines.map((line) => h('p', line))),
        safeAtMs !== undefined &&
          h('b', leftMs > 0 ? `Safe in ${span(leftMs + 999)}` : 'Safe: it has stopped by now.'),
        h(
          'footer',
          h('button', { type: 'button', name: 'close', onclick: () => this.#element.close() }, 'Close'),
        ),
      ),
    ]
  }

  async #submit(order: Order): Promise<void> {
    const reason = this.#value('reason').trim()
    const flaw = this.#flawOf(order, reason)
    if (flaw !== undefined) {
      this.#turn({ kind: 'asking', flaw })
      this.#field(flaw.field)?.focus()
      return
    }
    const node = this.#value('node')
    this.#turn({ kind: 'busy' })
    this.#turn(
      await order.run(reason, node).then(
        (outcome) => ({ kind: 'done', outcome }) as const,
        (error: unknown) => failed(order, error, this.#nowMs()),
      ),
    )
    this.#field('close')?.focus()
  }

  #flawOf(order: Order, reason: string): { field: string; text: string } | undefined {
    const text = order.reason ? flawOfReason(reason) : undefined
    if (text !== undefined) return { field: 'reason', text }
    if (order.typed === undefined || this.#value('typed').trim() === order.typed) return undefined
    return { field: 'typed', text: `The holder is healthy: type ${order.typed} to show that you mean it.` }
  }

  #turn(phase: Phase): void {
    this.#phase = phase
    this.draw()
  }

  #value(name: string): string {
    const field = this.#field(name)
    return field instanceof HTMLInputElement || field instanceof HTMLSelectElement ? field.value : ''
  }

  #field(...names: string[]): HTMLElement | undefined {
    for (const name of names) {
      const field = this.#element.querySelector<HTMLElement>(`[name="${name}"]`)
      if (field !== null) return field
    }
    return undefined
  }
}

/** What is known about what was not done, and no more. */
function failed(order: Order, error: unknown, nowMs: number): Phase {
  if (!(error instanceof ApiError))
    return { kind: 'failed', title: 'It did not work', lines: [String(error)] }
  const { status, current, message, failure } = error
  if (status === 412)
    return { kind: 'failed', title: order.refused, lines: movedOn(current, nowMs) ?? [message] }
  if (failure === 'away' || failure === 'database')
    return {
      kind: 'failed',
      title: 'No answer',
      lines: ['Whether it was done is not known. Close this, and look before you try again.', message],
    }
  if (status === 403 || status === 401)
    return { kind: 'failed', title: order.refused, lines: ['You may not do this.', message] }
  return { kind: 'failed', title: order.refused, lines: [message] }
}

/** Undefined when the server has not said how it is now. */
function movedOn(
  current: Readonly<Record<string, unknown>> | undefined,
  nowMs: number,
): string[] | undefined {
  const { holder, token, acquiredAt } = (current ?? {}) as Partial<Lease>
  if (token === undefined) return undefined
  const before = 'It is not held any more as it was when you were asked.'
  if (!holder) return [before, `Nobody holds it at the moment; its latest token is ${token}.`]
  const since = acquiredAt ? `, taken ${ago(nowMs - Date.parse(acquiredAt))}` : ''
  return [before, `The leader now is ${holder.name}, with token ${token}${since}.`]
}
