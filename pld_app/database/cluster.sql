-- The five roles of an installation and what they have of this database; run again, it mends and changes nothing else.
-- Needs a superuser, or (on a managed service) the account that made the database and may make roles. Run in the
-- application's database: by docker/postgres-init.sh, the embedded stack, and `manage.py database_roles apply`.
-- Passwords are set separately; a role without one cannot sign in where the server asks for one.
--
--   pld_owner     owns everything, signs in nowhere
--   pld_migrator  signs in to migrate; has nothing itself, acts as pld_owner by SET ROLE
--   pld_app       web, worker and beat: owns nothing
--   pld_sealer    the process that seals the audit log
--   pld_auditor   reads, secrets excepted
DO $roles$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT * FROM (VALUES ('pld_owner', 'NOLOGIN'), ('pld_migrator', 'LOGIN'), ('pld_app', 'LOGIN'),
                                   ('pld_sealer', 'LOGIN'), ('pld_auditor', 'LOGIN')) AS t(name, login) LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one.name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOINHERIT %s', one.name, one.login);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- another installation made it at this moment
      END;
    END IF;
    -- Altered only where it deviates: on a managed service nobody may even say NOSUPERUSER.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = one.name AND (rolsuper OR rolcreaterole OR rolcreatedb
               OR rolreplication OR rolbypassrls OR rolinherit OR rolcanlogin <> (one.login = 'LOGIN'))) THEN
      EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS NOINHERIT %s',
                     one.name, one.login);
    END IF;
  END LOOP;

  -- Of our roles only the migrator is a member of anything, and of the owner alone.
  FOR one IN SELECT m.roleid::regrole AS granted, m.member::regrole AS member FROM pg_auth_members m
             WHERE m.member IN ('pld_owner'::regrole, 'pld_app'::regrole, 'pld_sealer'::regrole, 'pld_auditor'::regrole)
                OR (m.member = 'pld_migrator'::regrole AND m.roleid <> 'pld_owner'::regrole) LOOP
    EXECUTE format('REVOKE %s FROM %s', one.granted, one.member);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = 'pld_owner'::regrole AND member = 'pld_migrator'::regrole) THEN
    GRANT pld_owner TO pld_migrator;
  END IF;
  IF current_user <> 'pld_owner' AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
     AND NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = 'pld_owner'::regrole AND member = current_user::regrole
                       AND NOT admin_option) THEN
    EXECUTE format('GRANT pld_owner TO %I', current_user);  -- who is no superuser hands over only to a role it is in
  END IF;
END
$roles$;

DO $database$
DECLARE
  one record;
BEGIN
  IF (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()) <> 'pld_owner' THEN
    EXECUTE format('ALTER DATABASE %I OWNER TO pld_owner', current_database());
  END IF;
  IF (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public') <> 'pld_owner' THEN
    ALTER SCHEMA public OWNER TO pld_owner;
  END IF;
  FOR one IN
    SELECT format('ALTER %s %s OWNER TO pld_owner',
                  CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                  c.oid::regclass) AS statement
      FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
       AND c.relowner <> 'pld_owner'::regrole
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                       AND d.deptype IN ('e', 'a', 'i'))  -- an extension's, or a column's own sequence
    UNION ALL
    SELECT format('ALTER ROUTINE %s OWNER TO pld_owner', p.oid::regprocedure)
      FROM pg_proc p
     WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'pld_owner'::regrole
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
  LOOP
    EXECUTE one.statement;
  END LOOP;
END
$database$;

DO $access$
BEGIN
  -- Nobody but the owner makes tables, temporary ones included: a temporary table can stand in for one of ours.
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, pld_migrator, pld_app, pld_sealer, pld_auditor', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO pld_migrator, pld_app, pld_sealer, pld_auditor', current_database());
  REVOKE ALL ON SCHEMA public FROM PUBLIC, pld_migrator, pld_app, pld_sealer, pld_auditor;
  GRANT USAGE ON SCHEMA public TO pld_app, pld_sealer, pld_auditor;
END
$access$;
