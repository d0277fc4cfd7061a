-- Note what is kept of a tenant outside its queue, so that it can be removed with the tenant.
--
-- KEYS[1]  the site's tag
-- ARGV     1 schema, 2 tenant or '', 3 its name, "group;<group>" or "result;<id>", 4 seconds for which it is kept, or 0
--          for good
-- Returns  how many names are noted; 0 if the tenant was deleted, because then nothing is noted

write_though_full()
if is_deleted(ARGV[2]) then
  return 0
end
return keep(claim_queue(ARGV[1], ARGV[2]), ARGV[3], tonumber(ARGV[4]))
