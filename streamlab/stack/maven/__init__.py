"""The Maven files that say which jars the JVM servers run on."""
