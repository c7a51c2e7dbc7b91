module github.com/csc-scc/liaison/tests/cluster/pause

go 1.25.0
