/** The author and reason of a request, as the audit trail records them. */
import type { FastifyRequest } from 'fastify'
import type { Instruction } from '../../core/changes/operations.js'
import type { Guard } from './guard.js'

/** Returns the instruction. The actor is always the one that `authorize` returned; a request cannot name another. */
export function instructionOf(request: FastifyRequest, guard: Guard, reason: string): Instruction {
  const actor = guard.actorOf(request)
  if (actor === undefined) throw new Error('A write was let through without an actor')
  return { actor: actor.id, reason }
}
