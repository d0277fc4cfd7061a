-- Note what is kept outside a queue for a tenant, so that it can be removed with the tenant.
--
-- KEYS[1]  the site's tag
-- ARGV     1 schema, 2 tenant or '', 3 what, 4 seconds it is kept, or 0 for good
-- Returns  how much is noted; 0 where the tenant was deleted, and nothing is noted then

write_though_full()
if is_deleted(ARGV[2]) then
  return 0
end
return keep(claim_queue(ARGV[1], ARGV[2]), ARGV[3], tonumber(ARGV[4]))
