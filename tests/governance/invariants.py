# ruff: noqa: E501  # a condition stays in one line
"""I1 to I14 as one query over everything of a task: what it returns is broken, by name."""

from django.db import connection

# Each line: the invariant and a query that finds a row only where it is broken; %(task)s is the task.
BROKEN: dict[str, str] = {
    "I1 revisions have gaps": """
      SELECT 1 FROM rules_revision r JOIN rules_instruction i ON i.id = r.instruction_id WHERE i.task_id = %(task)s
       GROUP BY r.instruction_id HAVING max(r.number) <> count(*)""",
    "I1 release versions have gaps": """
      SELECT 1 FROM rules_release WHERE task_id = %(task)s HAVING max(version) <> count(*)""",
    "I2 a signature is over other bytes": """
      SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id WHERE s.task_id = %(task)s
         AND (g.manifest_sha256 <> s.manifest_sha256 OR s.manifest_sha256 <> encode(sha256(s.manifest), 'hex'))""",
    "I3 an older text is approved": """
      SELECT 1 FROM rules_instruction WHERE task_id = %(task)s AND status = 'approved'
         AND approved_revision_id IS DISTINCT FROM current_revision_id""",
    "I4 an author approved": """
      SELECT 1 FROM rules_decision d JOIN rules_revision r ON r.id = d.revision_id
        JOIN rules_instruction i ON i.id = d.instruction_id
       WHERE i.task_id = %(task)s AND d.kind = 'approve' AND r.author_id = d.actor_id""",
    "I4 who worked on it signed": """
      SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id
       WHERE s.task_id = %(task)s AND g.meaning <> 'authored' AND pld_worked_on(s.id, g.signer_id)""",
    "I5 somebody signed twice": """
      SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id WHERE s.task_id = %(task)s
       GROUP BY g.ruleset_id, g.signer_id HAVING count(*) > 1""",
    "I6 released without two signers, an approval, or over a rejection": """
      SELECT 1 FROM rules_release l WHERE l.task_id = %(task)s AND NOT EXISTS (
        SELECT 1 FROM rules_signature g WHERE g.ruleset_id = l.ruleset_id HAVING count(DISTINCT g.signer_id) >= 2
           AND bool_or(g.meaning IN ('approved', 'approved_with_conditions')) AND NOT bool_or(g.meaning = 'rejected'))""",
    "I7 a release carries other bytes": """
      SELECT 1 FROM rules_release l JOIN rules_ruleset s ON s.id = l.ruleset_id WHERE l.task_id = %(task)s
         AND (l.manifest_sha256, l.prompt) IS DISTINCT FROM (s.manifest_sha256, s.prompt)""",
    "I8 and I10 an act in another role": """
      SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id JOIN pld_app_auditevent e ON e.id = g.event_id
       WHERE s.task_id = %(task)s AND (e.actor_role <> g.signer_role OR g.signer_role <> 'signatory')
      UNION ALL SELECT 1 FROM rules_decision d JOIN rules_instruction i ON i.id = d.instruction_id
        JOIN pld_app_auditevent e ON e.id = d.event_id WHERE i.task_id = %(task)s AND e.actor_role <> 'reviewer'
      UNION ALL SELECT 1 FROM rules_publication p JOIN pld_app_auditevent e ON e.id = p.event_id
       WHERE p.task_id = %(task)s AND e.actor_role <> 'signatory'""",
    "I9 an act without its own fresh proof": """
      SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id
        LEFT JOIN pld_app_reauthentication r ON r.id = g.reauthentication_id WHERE s.task_id = %(task)s
         AND (r.user_id = g.signer_id AND r.content_sha256 = g.manifest_sha256 AND g.at - r.at < interval '5 minutes')
             IS NOT TRUE
      UNION ALL SELECT 1 FROM rules_publication p LEFT JOIN pld_app_reauthentication r ON r.id = p.reauthentication_id
       WHERE p.task_id = %(task)s AND (r.user_id = p.actor_id AND p.at - r.at < interval '5 minutes') IS NOT TRUE""",
    "C17 a publisher holds another duty": """
      SELECT 1 FROM rules_publication p JOIN rules_release l ON l.id = p.release_id WHERE p.task_id = %(task)s
         AND p.kind = 'publish' AND (pld_worked_on(l.ruleset_id, p.actor_id) OR EXISTS (
               SELECT 1 FROM rules_signature g WHERE g.ruleset_id = l.ruleset_id AND g.signer_id = p.actor_id))""",
    "I12 withdrawn without a signed act": """
      SELECT 1 FROM rules_ruleset s WHERE s.task_id = %(task)s AND s.status = 'withdrawn' AND s.frozen_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM rules_revocation v WHERE v.ruleset_id = s.id)
         AND (EXISTS (SELECT 1 FROM rules_release l WHERE l.ruleset_id = s.id)
              OR NOT EXISTS (SELECT 1 FROM rules_rulesetitem x JOIN rules_decision d ON d.instruction_id = x.instruction_id
                              WHERE x.ruleset_id = s.id AND d.kind = 'reopen' AND d.at >= s.frozen_at))""",
    "I13 a role without two administrators": """
      SELECT 1 FROM pld_app_auditevent e WHERE e.action = 'account.role_changed' AND NOT EXISTS (
        SELECT 1 FROM pld_app_rolegrantstep a JOIN pld_app_rolegrant g ON g.id = a.grant_id
          JOIN pld_app_rolegrantstep c ON c.grant_id = g.id AND c.kind = 'confirmed'
         WHERE a.event_id = e.id AND c.actor_id NOT IN (g.requested_by_id, g.user_id))""",
    "I14 a row without its event": """
      SELECT 1 FROM rules_decision d JOIN rules_instruction i ON i.id = d.instruction_id
        LEFT JOIN pld_app_auditevent e ON e.id = d.event_id AND e.actor_id = d.actor_id AND e.object_type = 'instruction'
         AND e.object_id = d.instruction_id::text WHERE i.task_id = %(task)s AND e.id IS NULL
      UNION ALL SELECT 1 FROM rules_signature g JOIN rules_ruleset s ON s.id = g.ruleset_id
        LEFT JOIN pld_app_auditevent e ON e.id = g.event_id AND e.action = 'ruleset.signed' AND e.actor_id = g.signer_id
         AND e.object_id = g.ruleset_id::text WHERE s.task_id = %(task)s AND e.id IS NULL
      UNION ALL SELECT 1 FROM rules_publication p LEFT JOIN pld_app_auditevent e ON e.id = p.event_id
         AND e.actor_id = p.actor_id AND e.object_id = p.release_id::text WHERE p.task_id = %(task)s AND e.id IS NULL""",
}
_QUERY = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS ({query})" for name, query in BROKEN.items())


def broken_invariants(task_id: int) -> list[str]:
    """The names of those that do not hold for this task."""
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, {"task": task_id})
        return [str(row[0]) for row in cursor.fetchall()]
