// How often was each entry point called, and which call is to fail?
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

namespace syncbn::sim {

struct Site {
  struct Fault {
    long call;  // counted like `total`
    int code;
  };
  std::string name;
  std::mutex mutex;
  long total = 0;  // since the process started
  long reset = 0;  // `total` at the last reset_calls
  std::vector<Fault> faults;
};

namespace {

struct Sites {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Site>> by_name;
};

Site &find_or_add(Sites &sites, const std::string &name) {
  std::lock_guard<std::mutex> lock(sites.mutex);
  std::unique_ptr<Site> &site = sites.by_name[name];
  if (!site) {
    site.reset(new Site);
    site->name = name;
  }
  return *site;
}

// SYNCBN_SIM_FAULTS=name:k:code,... The k-th call of name returns code.
void read_faults(Sites &sites, const char *text) {
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string item = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    char name[128];
    long call;
    int code;
    if (sscanf(item.c_str(), "%127[^:]:%ld:%d", name, &call, &code) == 3) {
      find_or_add(sites, name).faults.push_back({call, code});
    } else {
      report("SYNCBN_SIM_FAULTS: '%s' is not name:k:code", item.c_str());
    }
  }
}

Sites &all_sites() {
  static Sites *sites = [] {
    Sites *made = new Sites;
    read_faults(*made, getenv("SYNCBN_SIM_FAULTS"));
    return made;
  }();
  return *sites;
}

}  // namespace

Site &site(const char *name) { return find_or_add(all_sites(), name); }

int enter(Site &site) {
  int code = 0;
  {
    std::lock_guard<std::mutex> lock(site.mutex);
    ++site.total;
    for (size_t i = 0; i < site.faults.size(); ++i) {
      if (site.faults[i].call != site.total) continue;
      code = site.faults[i].code;
      site.faults.erase(site.faults.begin() + static_cast<long>(i));
      break;
    }
  }
  if (settings().trace) {
    report(code ? "%s on device %d -> injected %d" : "%s on device %d", site.name.c_str(), thread_state.device, code);
  }
  return code;
}

void fail(const std::string &name, long k, int code) {
  Site &site = find_or_add(all_sites(), name);
  std::lock_guard<std::mutex> lock(site.mutex);
  if (k < 1) {
    site.faults.clear();
  } else {
    site.faults.push_back({site.total + k, code});
  }
}

long calls(const std::string &name) {
  Site &site = find_or_add(all_sites(), name);
  std::lock_guard<std::mutex> lock(site.mutex);
  return site.total - site.reset;
}

std::string functions() {
  Sites &sites = all_sites();
  std::string lines;
  std::lock_guard<std::mutex> lock(sites.mutex);
  for (auto &entry : sites.by_name) {
    std::lock_guard<std::mutex> site_lock(entry.second->mutex);
    const long count = entry.second->total - entry.second->reset;
    if (count > 0) lines += format("%s %ld\n", entry.first.c_str(), count);
  }
  return lines;
}

void reset_calls() {
  Sites &sites = all_sites();
  std::lock_guard<std::mutex> lock(sites.mutex);
  for (auto &entry : sites.by_name) {
    std::lock_guard<std::mutex> site_lock(entry.second->mutex);
    entry.second->reset = entry.second->total;
  }
}

}  // namespace syncbn::sim
