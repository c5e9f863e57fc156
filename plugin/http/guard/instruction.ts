/** What is written into the audit trail about a request. */
import type { FastifyRequest } from 'fastify'
import type { Instruction } from '../../core/changes/operations.js'
import type { Guard } from './guard.js'

/** The actor is whom `authorize` has named, and nobody else: nothing in a request can name another one. */
export function instructionOf(request: FastifyRequest, guard: Guard, reason: string): Instruction {
  const actor = guard.actorOf(request)
  if (actor === undefined) throw new Error('A write was let through without an actor')
  return { actor: actor.id, reason }
}
