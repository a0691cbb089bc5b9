package limits

import (
	"path"
	"strings"
)

// cgroups returns the directories of the process's cgroups in which a controller may have limits.
// Their parents limit it as well.
func (s System) cgroups(controller string) (dirs []string) {
	for line := range strings.Lines(s.read("/proc/self/cgroup")) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		var mounts []string
		switch {
		case id == "0" && controllers == "":
			mounts = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
		case strings.Contains(","+controllers+",", ","+controller+","):
			mounts = []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup/" + controllers}
		}
		for _, mount := range mounts {
			for at := path.Clean("/" + at); ; at = path.Dir(at) {
				dirs = append(dirs, path.Join(mount, at))
				if at == "/" {
					break
				}
			}
		}
	}
	return dirs
}
